"""Work on a Kubernetes cluster: jobs and their watcher, housekeeping, and checks of what the cluster must offer.

The only package that speaks to the Kubernetes API; its client is imported in the functions that use it.
"""
