//! Programs that others have written understand the server.

use std::process::{Command, Output};

use super::*;

fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new("timeout").arg("60").arg(program).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{program}: {}{}", text(&output.stdout), text(&output.stderr));
    output
}

fn is_there(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        println!("skipped: there is no {program}");
    }
    found
}

#[test]
fn qemu_writes_and_verifies_patterns() {
    if !is_there("qemu-io") {
        return;
    }
    let node = Node::serving(64 << 20);
    let uri = format!("nbd+unix:///r1?socket={}", node.listen().display());
    let commands = [
        "write -P 7 0 1M",
        "write -P 8 4096 512",
        "write -P 9 12345 54321",
        "write -z 1M 1M",
        "write -zu 2M 64k",
        "discard 8M 4M",
        "flush",
        "aio_write -P 5 16M 2M",
        "aio_write -f -P 6 20M 4k",
        "aio_flush",
        "read -P 8 4096 512",
        "read -P 9 12345 54321",
        "read -P 0 1M 1M",
        "read -P 0 8M 4M",
        "read -P 5 16M 2M",
        "read -P 6 20M 4k",
    ];
    let mut arguments = vec!["-f", "raw"];
    commands.iter().for_each(|command| arguments.extend(["-c", command]));
    arguments.push(&uri);
    let output = run("qemu-io", &arguments);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!said.contains("failed") && !said.contains("error"), "{said}");
}

#[test]
fn nbdcopy_copies_there_and_back_and_sees_the_holes() {
    if !is_there("nbdcopy") {
        return;
    }
    let node = Node::serving(64 << 20);
    let uri = format!("nbd+unix:///r1?socket={}", node.listen().display());
    let (from, back) = (node.folder.path().join("from"), node.folder.path().join("back"));
    let mut content = vec![0_u8; 64 << 20];
    content.iter_mut().enumerate().filter(|(at, _)| at / (5 << 20) % 2 == 0).for_each(|(at, byte)| *byte = (at % 249) as u8 + 1);
    std::fs::write(&from, &content).unwrap();
    run("nbdcopy", &["--flush", from.to_str().unwrap(), &uri]);
    assert!(std::fs::read(node.data()).unwrap() == content, "the file is not what was copied to it");
    run("nbdcopy", &[&uri, back.to_str().unwrap()]);
    assert!(std::fs::read(&back).unwrap() == content, "what was copied back is not what was copied there");
    if is_there("nbdinfo") {
        let output = run("nbdinfo", &["--map", "--totals", &uri]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("hole,zero"), "{said}");
    }
}
