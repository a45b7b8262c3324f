//! The examples of the manual's FILTERS section are run as they stand. Needs root.

use std::fs;
use std::process::Command;

/// The blocks between `.EX` and `.EE`, as the reader sees them.
fn examples() -> Vec<String> {
    let page = include_str!("../man/filters.8.in");
    let blocks = page.split("\n.EX\n").skip(1).filter_map(|rest| rest.split("\n.EE").next());
    blocks.map(|block| block.replace("\\-", "-")).collect()
}

#[test]
fn each_example_runs() {
    let folder = std::env::temp_dir().join(format!("tcptrace-manual-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let yaml = examples().into_iter().find(|block| block.starts_with("process_filter:"));
    fs::write(folder.join("netmon.yaml"), yaml.expect("a configuration")).expect("write it");
    let tcptrace = env!("CARGO_BIN_EXE_tcptrace");
    let folder_of_it = std::path::Path::new(tcptrace).parent().expect("a folder").to_owned();
    let mut run = 0;
    for example in examples().iter().filter_map(|block| block.strip_prefix("# ")) {
        // The shell takes the quotes off, as it does for the reader.
        let output = Command::new("sh")
            .args(["-c", &format!("{} --timeout 10ms", example)])
            .env("PATH", format!("{}:/usr/bin:/bin", folder_of_it.display()))
            .current_dir(&folder)
            .output()
            .expect("run a shell");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && stderr.contains("tcptrace: ready"), "{example}: {stderr}");
        run += 1;
    }
    fs::remove_dir_all(&folder).expect("remove the folder");
    assert!(run >= 10, "{run} examples");
}
