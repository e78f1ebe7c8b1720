"""scikit-learn's face of deep clustering, over `jaxcluster.deep`."""
