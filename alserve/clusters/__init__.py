"""Files that start a folder run on a cluster: a Kubernetes Job, a Slurm array, a KubeRay RayJob."""
