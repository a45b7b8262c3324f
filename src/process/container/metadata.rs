//! Parses the files of container runtimes for the names of a container. No input panics.
//!
//! Each function takes a whole file, and returns none if it is not in the runtime's format or names nothing.

use std::collections::HashMap;

use serde::Deserialize;

use crate::event::Container;

/// Maximum length of a name in bytes: pod names have at most 253, images with tag and digest are longer.
const NAME_MAX: usize = 512;

/// Labels or annotations, by key.
type Pairs = HashMap<String, String>;

/// The keys that a runtime uses for each name; the first one present wins.
struct Keys {
    name: &'static [&'static str],
    image: &'static [&'static str],
    pod: &'static str,
    namespace: &'static str,
}

/// containerd: its CRI plugin (pkg/cri/annotations), and nerdctl (pkg/labels), which passes its labels on.
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

/// Docker's config.v2.json. Containers started by cri-dockerd have the kubelet's labels.
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

/// The config.json that CRI-O writes for runc; podman's has no names.
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

/// The containers.json of containers/storage, used by podman and CRI-O: all containers of one user.
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

/// Docker's data directory in /etc/docker/daemon.json, if it is set.
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

/// Accepts a name unless it is empty, too long, or contains a NUL.
fn believed(name: String) -> Option<String> {
    (!name.is_empty() && name.len() <= NAME_MAX && !name.contains('\0')).then_some(name)
}

fn known(found: Container) -> Option<Container> {
    (!found.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests;
