"""How anything is iterated, folded, restarted, spread over devices and checked."""
