"""Deep clustering estimators with scikit-learn's interface, over `jaxcluster.deep`."""
