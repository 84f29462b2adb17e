"""Training on other nodes: manifests of the jobs, the watcher of one job, and what runs as a pod's first process."""
