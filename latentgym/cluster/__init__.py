"""Several processes by Ray: the connection to a cluster, and evaluation over its workers."""
