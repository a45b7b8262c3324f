//! What a container is called, from the files that its runtime keeps. Total: no input panics.
//!
//! Each function takes the whole of a file and returns none where it is not what the runtime writes, or says nothing.

use std::collections::HashMap;

use serde::Deserialize;

use crate::event::Container;

/// Bytes of a name that are believed: a pod's has 253 at most, an image's tag and digest make it longer.
const NAME_MAX: usize = 512;

/// Labels or annotations.
type Pairs = HashMap<String, String>;

/// The keys a runtime has for a container's names; of several the first that is there.
struct Keys {
    name: &'static [&'static str],
    image: &'static [&'static str],
    pod: &'static str,
    namespace: &'static str,
}

/// containerd: its CRI plugin (pkg/cri/annotations), and nerdctl (pkg/labels), which hands its labels on.
const CONTAINERD: Keys = Keys {
    name: &["io.kubernetes.cri.container-name", "nerdctl/name"],
    image: &["io.kubernetes.cri.image-name"],
    pod: "io.kubernetes.cri.sandbox-name",
    namespace: "io.kubernetes.cri.sandbox-namespace",
};

/// CRI-O (pkg/annotations) and the kubelet (pkg/kubelet/types/labels.go).
const CRIO: Keys = Keys {
    name: &["io.kubernetes.container.name"],
    image: &["io.kubernetes.cri-o.ImageName"],
    pod: "io.kubernetes.pod.name",
    namespace: "io.kubernetes.pod.namespace",
};

#[derive(Deserialize)]
struct DockerFile {
    #[serde(rename = "Name")]
    name: Option<String>,
    #[serde(rename = "Config")]
    config: Option<DockerConfig>,
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(rename = "Image")]
    image: Option<String>,
    #[serde(rename = "Labels")]
    labels: Option<Pairs>,
}

/// Docker's config.v2.json. What cri-dockerd starts has the kubelet's labels.
pub fn docker(file: &[u8]) -> Option<Container> {
    let DockerFile { name, config } = serde_json::from_slice(file).ok()?;
    let (image, labels) = config.map_or((None, None), |config| (config.image, config.labels));
    let mut found = named(labels.unwrap_or_default(), &CRIO);
    found.name = found.name.or_else(|| believed(name?.trim_start_matches('/').to_owned()));
    found.image = image.and_then(believed);
    known(found)
}

#[derive(Deserialize)]
struct OciFile {
    annotations: Option<Pairs>,
}

/// The config.json that containerd writes for runc (OCI runtime specification).
pub fn containerd(file: &[u8]) -> Option<Container> {
    known(named(annotations(file)?, &CONTAINERD))
}

/// The config.json that CRI-O writes for runc; podman's names nothing.
pub fn crio(file: &[u8]) -> Option<Container> {
    known(named(annotations(file)?, &CRIO))
}

fn annotations(file: &[u8]) -> Option<Pairs> {
    serde_json::from_slice::<OciFile>(file).ok()?.annotations
}

#[derive(Deserialize)]
struct Stored {
    id: String,
    names: Option<Vec<String>>,
    metadata: Option<String>,
}

#[derive(Deserialize)]
struct StoredMetadata {
    #[serde(rename = "image-name")]
    image: Option<String>,
    #[serde(rename = "pod-name")]
    pod: Option<String>,
}

/// containers.json of containers/storage, which podman and CRI-O share: all containers of one owner.
pub fn storage(file: &[u8], id: &str) -> Option<Container> {
    let all: Vec<Stored> = serde_json::from_slice(file).ok()?;
    let stored = all.into_iter().find(|stored| stored.id == id)?;
    let metadata = stored.metadata.and_then(|text| serde_json::from_str::<StoredMetadata>(&text).ok());
    let (image, pod) = metadata.map_or((None, None), |metadata| (metadata.image, metadata.pod));
    known(Container {
        name: stored.names.unwrap_or_default().into_iter().find_map(believed),
        image: image.and_then(believed),
        pod: pod.and_then(believed),
        namespace: None,
    })
}

#[derive(Deserialize)]
struct DaemonFile {
    #[serde(rename = "data-root")]
    data_root: Option<String>,
}

/// Where Docker keeps its data, from /etc/docker/daemon.json; none where it says nothing.
pub fn docker_data_root(file: &[u8]) -> Option<String> {
    serde_json::from_slice::<DaemonFile>(file).ok()?.data_root.filter(|path| path.starts_with('/'))
}

fn named(mut pairs: Pairs, keys: &Keys) -> Container {
    let mut take = |key: &str| pairs.remove(key).and_then(believed);
    Container {
        name: keys.name.iter().find_map(|key| take(key)),
        image: keys.image.iter().find_map(|key| take(key)),
        pod: take(keys.pod),
        namespace: take(keys.namespace),
    }
}

/// A name that says something and is no longer than names are. It may hold anything but a NUL.
fn believed(name: String) -> Option<String> {
    (!name.is_empty() && name.len() <= NAME_MAX && !name.contains('\0')).then_some(name)
}

fn known(found: Container) -> Option<Container> {
    (!found.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests;
