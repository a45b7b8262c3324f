//! Files written by the runtimes, and malformed ones.

use proptest::prelude::*;

use super::*;

/// Written by Docker 20.10 for `docker run --name dweb shop/box:2`.
const DOCKER: &[u8] = include_bytes!("../samples/docker.json");
/// Written by containerd 1.6 for a container with the annotations of its CRI plugin.
const CONTAINERD: &[u8] = include_bytes!("../samples/containerd.json");
/// Written by containerd 1.6 for Docker.
const MOBY: &[u8] = include_bytes!("../samples/containerd-moby.json");
/// Written by podman 4.3 for three containers, one of them with `--rm`, one in a pod.
const PODMAN: &[u8] = include_bytes!("../samples/podman.json");
/// Written by podman 4.3 for one of these containers.
const PODMAN_CONFIG: &[u8] = include_bytes!("../samples/podman-config.json");
/// Annotations of CRI-O 1.30 according to its documentation and sources; not tested with CRI-O itself.
const CRIO: &[u8] = br#"{"ociVersion": "1.0.2-dev", "annotations": {
    "io.container.manager": "cri-o",
    "io.kubernetes.container.name": "app",
    "io.kubernetes.cri-o.Annotations": "{\"io.kubernetes.pod.terminationGracePeriod\":\"30\"}",
    "io.kubernetes.cri-o.ContainerType": "container",
    "io.kubernetes.cri-o.ImageName": "registry.example/shop/web:3",
    "io.kubernetes.cri-o.Name": "k8s_app_web-0_shop_2b801b7a-5266-4386-864e-45ed71136371_0",
    "io.kubernetes.pod.name": "web-0",
    "io.kubernetes.pod.namespace": "shop"}}"#;

type Parser = fn(&[u8]) -> Option<Container>;

const PARSERS: [Parser; 4] = [docker, containerd, crio, |file| storage(file, "x")];

fn container(name: &str, image: &str, pod: &str, namespace: &str) -> Option<Container> {
    let [name, image, pod, namespace] =
        [name, image, pod, namespace].map(|text| (!text.is_empty()).then(|| text.to_owned()));
    Some(Container { name, image, pod, namespace })
}

#[test]
fn names_in_files_of_each_runtime() {
    assert_eq!(docker(DOCKER), container("dweb", "shop/box:2", "", ""));
    let nginx = "docker.io/library/nginx:1.25";
    assert_eq!(containerd(CONTAINERD), container("app", nginx, "web-7d4b9c6f5-x2kqp", "shop"));
    assert_eq!(containerd(MOBY), None);
    assert_eq!(crio(CRIO), container("app", "registry.example/shop/web:3", "web-0", "shop"));
    assert_eq!(crio(PODMAN_CONFIG), None);
    for (id, name) in [
        ("ca42dca2b9082acf14875d8d68006bed44ca7ac3043bfa41834c28b9359b666b", "web"),
        ("d3ed2d7221d88ffd6fc4b597e4650c4e975c5b932e6c206658be75b187dc552d", "gone"),
        ("ba80f1d95faa1d4c7f005ce938a4dcabda1d7e7ce50b8a9d8b9e9006088ad3e8", "cart"),
    ] {
        assert_eq!(storage(PODMAN, id), container(name, "localhost/box:1", "", ""), "{id}");
        assert_eq!(storage(PODMAN, &id[1..]), None);
    }
}

#[test]
fn labels_of_kubernetes_tools() {
    let kubelet = br#"{"Name": "/k8s_app_web-0_shop_1_0", "Config": {"Image": "sha256:00", "Labels": {
        "io.kubernetes.container.name": "app", "io.kubernetes.pod.name": "web-0", "io.kubernetes.pod.namespace": "shop"}}}"#;
    assert_eq!(docker(kubelet), container("app", "sha256:00", "web-0", "shop"));
    assert_eq!(docker(br#"{"Name": "/a", "Config": {"Labels": null}}"#), container("a", "", "", ""));
    let nerdctl = br#"{"annotations": {"nerdctl/name": "web", "nerdctl/namespace": "default"}}"#;
    assert_eq!(containerd(nerdctl), container("web", "", "", ""));
    // a CRI-O pod's own annotations are not read by the rules of containerd
    assert_eq!(crio(br#"{"annotations": {"io.kubernetes.cri.container-name": "x"}}"#), None);
    let pod = br#"[{"id": "x", "names": null, "metadata": "{\"pod-name\":\"web-0\"}"}]"#;
    assert_eq!(storage(pod, "x"), container("", "", "web-0", ""));
    assert_eq!(
        storage(br#"[{"id": "x", "names": ["a"], "metadata": "?"}]"#, "x"),
        container("a", "", "", "")
    );
}

#[test]
fn invalid_names_are_ignored() {
    let long = "x".repeat(NAME_MAX + 1);
    for name in ["", "/", "a\\u0000b", &long] {
        assert_eq!(docker(format!("{{\"Name\": \"{name}\"}}").as_bytes()), None, "{name}");
    }
}

#[test]
fn truncated_files_are_ignored() {
    for file in [DOCKER, CONTAINERD, CRIO, PODMAN].map(<[u8]>::trim_ascii_end) {
        for end in 0..file.len() {
            PARSERS.iter().for_each(|parse| assert_eq!(parse(&file[..end]), None));
        }
    }
}

#[test]
fn files_of_other_formats_are_ignored() {
    let deep = "[".repeat(1_000_000);
    let wide = format!("{{\"annotations\": {{{}\"z\": 1}}}}", "\"a\": \"b\",".repeat(100_000));
    for file in ["null", "1", "[]", "{}", "{\"Name\": 1}", "{\"annotations\": []}", "\u{0}", &deep, &wide] {
        PARSERS.iter().for_each(|parse| assert_eq!(parse(file.as_bytes()), None));
    }
}

#[test]
fn data_root_in_daemon_json() {
    assert_eq!(docker_data_root(br#"{"data-root": "/srv/docker"}"#).as_deref(), Some("/srv/docker"));
    for file in ["", "{}", "{\"data-root\": \"srv\"}", "{\"data-root\": 1}"] {
        assert_eq!(docker_data_root(file.as_bytes()), None);
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        PARSERS.iter().for_each(|parse| drop(parse(&bytes)));
    }

    /// Real files with some bytes changed.
    #[test]
    fn modified_files_do_not_panic(at in prop::collection::vec((0..4000_usize, any::<u8>()), 1..8)) {
        for file in [DOCKER, CONTAINERD, CRIO, PODMAN] {
            let mut file = file.to_vec();
            for &(at, byte) in &at {
                let length = file.len();
                file[at % length] = byte;
            }
            PARSERS.iter().for_each(|parse| drop(parse(&file)));
        }
    }
}
