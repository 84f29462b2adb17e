"""Work on a Kubernetes cluster: jobs that train, the watcher of one job, what runs as a pod's first process,
housekeeping, and checks of what the cluster must offer.

The only package that speaks to the Kubernetes API; its client is imported in the functions that use it.
"""
