//! What a container is called.

/// The names that the runtime's files give a container; none of what they do not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Container {
    /// Its name: in a pod, of the container in the pod.
    pub name: Option<String>,
    /// The image it was made from, as it was asked for.
    pub image: Option<String>,
    /// Its pod.
    pub pod: Option<String>,
    /// The pod's Kubernetes namespace.
    pub namespace: Option<String>,
}

impl Container {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Container::default()
    }
}
