"""Trials of what goes wrong on real machines: kills, damaged files, full disks, two at once, little memory, long runs.

Each trial ends in one word. *Survived*: the result is that of an undisturbed run, or the best so far where the
documentation says so. *Named*: one line says what is wrong, and nothing that was there is lost. *Lost*, *wrong*
(another result without a word), *crashed* (a traceback, or a signal's death) and *hung* must be zero.
"""
