//! The names of a container.

/// The names that the container runtime's files give; fields they do not contain are none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Container {
    /// The container's name; in a pod, its name within the pod.
    pub name: Option<String>,
    /// The image, as requested when the container was created.
    pub image: Option<String>,
    /// The name of its Kubernetes pod.
    pub pod: Option<String>,
    /// The Kubernetes namespace of the pod.
    pub namespace: Option<String>,
}

impl Container {
    /// Whether no name is known.
    pub fn is_empty(&self) -> bool {
        *self == Container::default()
    }
}
