"""Networks trained without labels: ClusterGAN, SwAV and DeepCluster, on our side and in loops of plain PyTorch.

A call draws the weights, by one rule on both sides, trains for as many steps, and ends with the clusters of all rows.
Networks, losses, batches, views and rates of Adam are the same. `clustergan`, `swav` and `deepcluster` are ours;
``torch_*`` are the peers', which import PyTorch and are imported where it is installed.
"""
