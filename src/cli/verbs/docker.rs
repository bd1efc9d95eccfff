//! Docker's managed plugins: a folder that `docker plugin create` takes, and what runs in the plugin.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::program;
use crate::api::setup::RelayOptions;
use crate::cli::exit::Failure;
use crate::cli::given::Given;
use crate::cli::session::Session;
use crate::cli::spec::{Arg, Category, Example, Runtime, Takes, Verb};

const SOCKET: &str = "/run/docker/plugins/blkrep.sock";

/// The verbs.
pub(super) const VERBS: &[Verb] = &[
    Verb {
        name: "docker bundle",
        aliases: &[],
        category: Category::Program,
        short: "Write a managed Docker plugin into a directory",
        long: "For those who want Docker to manage the plugin: `docker plugin create blkrep DIR` makes one of it, `docker plugin push` \
               takes that to other nodes. It passes Docker's questions on to the node's daemon, which has to run, and which mounts the \
               volumes; so the plugin can be disabled, upgraded and enabled without disturbing what is mounted. Where Docker finds the \
               daemon's own socket nothing of this is needed.",
        args: &[&[
            Arg::place("directory", Takes::Path, "The directory: a new one"),
            Arg::option("socket", None, Takes::Path, "Where the daemon listens for Docker").default(SOCKET),
            Arg::flag(
                "discovery",
                None,
                "Write the files blkrep.spec and blkrep.json instead, that tell Docker of the daemon's socket",
            ),
        ]],
        examples: &[
            Example { line: "docker bundle plugin", does: "Write config.json and rootfs into the directory plugin" },
            Example {
                line: "docker bundle --discovery --socket /srv/blkrep.sock /etc/docker/plugins",
                does: "Tell Docker where the daemon listens",
            },
        ],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(async move { bundle(session, given) }),
    },
    Verb {
        name: "docker relay",
        aliases: &[],
        category: Category::Internal,
        short: "Pass Docker's questions on to the node's daemon",
        long: "It runs in the managed plugin; it is of no use by hand.",
        args: &[&[
            Arg::option("socket", None, Takes::Path, "The daemon's socket, as it is seen in the plugin").default(SOCKET),
            Arg::option("node-directory", None, Takes::Path, "The directory of the node that holds what is mounted")
                .default("/run"),
            Arg::option("log", None, Takes::Text("FILTER"), "What to log").default("info").env("BLKREP_LOG"),
        ]],
        examples: &[Example { line: "docker relay", does: "Serve Docker in the plugin" }],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(relay(session, given)),
    },
];

fn bundle(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let (directory, socket): (PathBuf, PathBuf) = (given.one("directory"), given.one("socket"));
    let failed = |error: io::Error| Failure::io(format_args!("cannot write into {}", directory.display()), &error);
    if given.flag("discovery") {
        write_discovery(&directory, &socket).map_err(failed)?;
        return session.output.done(&(), &[format!("Docker finds the plugin at {}", socket.display())]);
    }
    if directory.exists() {
        return Err(Failure::usage(format_args!("{} is there already", directory.display()), "name a directory that is new"));
    }
    // What the daemon has mounted is below its run directory; that one's parent is there even before the daemon runs.
    let run = std::path::absolute(session.root.run()).map_err(failed)?;
    let on_node = run.parent().unwrap_or(&run).to_owned();
    let program = std::env::current_exe().map_err(failed)?;
    write_root(&directory.join("rootfs"), &program).map_err(failed)?;
    let config = config(&on_node, &socket);
    fs::write(directory.join("config.json"), format!("{config:#}\n")).map_err(failed)?;
    let next = format!("next: docker plugin create blkrep {}; docker plugin enable blkrep", directory.display());
    session.output.done(&(), &[next])
}

/// Both kinds of files that Docker looks for: either is enough, and it reads the first that it finds.
fn write_discovery(directory: &Path, socket: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let address = format!("unix://{}", std::path::absolute(socket)?.display());
    fs::write(directory.join("blkrep.spec"), format!("{address}\n"))?;
    fs::write(directory.join("blkrep.json"), format!("{:#}\n", json!({ "Name": "blkrep", "Addr": address })))
}

/// The plugin's root file system: this program with the libraries that it is using just now, and the places that Docker mounts at.
fn write_root(root: &Path, program: &Path) -> io::Result<()> {
    for place in ["proc", "sys", "dev", "etc", "tmp", "run/docker/plugins", &VOLUMES[1..], &NODE[1..], &NODE_SOCKET[1..]] {
        fs::create_dir_all(root.join(place))?;
    }
    fs::copy(program, root.join("blkrep"))?;
    for library in libraries()? {
        let Ok(place) = library.strip_prefix("/") else { continue };
        let copy = root.join(place);
        fs::create_dir_all(copy.parent().unwrap_or(root))?;
        fs::copy(&library, copy)?;
    }
    link_loader(root)
}

/// The shared libraries of this process, the loader with them.
fn libraries() -> io::Result<BTreeSet<PathBuf>> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let files = maps.lines().filter_map(|line| line.split_once('/')).map(|(_, path)| PathBuf::from(format!("/{path}")));
    let is_library = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.contains(".so"));
    Ok(files.filter(is_library).collect())
}

/// Programs name their loader by a path that is a link on most systems, and to a directory on some.
fn link_loader(root: &Path) -> io::Result<()> {
    for name in ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"] {
        let (Ok(real), place) = (fs::canonicalize(name), root.join(&name[1..])) else { continue };
        if !place.exists() {
            fs::create_dir_all(place.parent().unwrap_or(root))?;
            fs::copy(real, place)?;
        }
    }
    Ok(())
}

/// What Docker is told of the plugin.
fn config(on_node: &Path, socket: &Path) -> Value {
    let directory = socket.parent().unwrap_or_else(|| Path::new("/"));
    let file = socket.file_name().map_or_else(|| Path::new("blkrep.sock"), Path::new);
    let bind = |name: &str, source: &Path, destination: &str| {
        json!({
            "name": name, "description": "", "source": source, "destination": destination, "type": "bind",
            "options": ["rbind", "rslave"], "settable": ["source"],
        })
    };
    json!({
        "description": "Volumes of a blkrep cluster",
        "documentation": "man 8 blkrep",
        "entrypoint": [
            "/blkrep", "docker", "relay", "--socket", Path::new(NODE_SOCKET).join(file), "--node-directory", on_node,
        ],
        "workdir": "/",
        "interface": { "types": ["docker.volumedriver/1.0"], "socket": "blkrep.sock" },
        "network": { "type": "none" },
        "linux": { "capabilities": ["CAP_SYS_ADMIN"], "allowAllDevices": false, "devices": null },
        "mounts": [bind("node", on_node, NODE), bind("socket", directory, NODE_SOCKET)],
        "propagatedMount": VOLUMES,
        "env": [{ "name": "BLKREP_LOG", "description": "what to log", "value": "info", "settable": ["value"] }],
        "args": { "name": "", "description": "", "value": [], "settable": null },
        "ipchost": false,
        "pidhost": false,
    })
}

async fn relay(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    program::log(given)?;
    let options = RelayOptions {
        listen: SOCKET.into(),
        socket: given.one("socket"),
        node: (given.one("node-directory"), NODE.into()),
        volumes: VOLUMES.into(),
    };
    session.setup.docker_relay(options).await.map_err(Failure::from)
}

/// Where the plugin sees the node's directory, and the one of the daemon's socket.
const NODE: &str = "/node";
const NODE_SOCKET: &str = "/node-socket";
/// Where it shows volumes to Docker.
const VOLUMES: &str = "/volumes";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_has_all_that_the_program_needs_to_run() {
        let directory = tempfile::tempdir().unwrap();
        write_root(directory.path(), &std::env::current_exe().unwrap()).unwrap();
        let there = |path: &Path| directory.path().join(path.strip_prefix("/").unwrap()).exists();
        let all = libraries().unwrap();
        assert!(all.iter().any(|path| path.to_string_lossy().contains("libc.so")), "{all:?}");
        assert!(all.iter().all(|path| there(path)));
        assert!(there(Path::new("/blkrep")) && there(Path::new(VOLUMES)) && there(Path::new(NODE)));
    }

    #[test]
    fn docker_is_told_where_the_daemon_listens() {
        let directory = tempfile::tempdir().unwrap();
        write_discovery(directory.path(), Path::new("/srv/b.sock")).unwrap();
        assert_eq!(fs::read_to_string(directory.path().join("blkrep.spec")).unwrap(), "unix:///srv/b.sock\n");
        let told: Value = serde_json::from_slice(&fs::read(directory.path().join("blkrep.json")).unwrap()).unwrap();
        assert_eq!(told, json!({ "Name": "blkrep", "Addr": "unix:///srv/b.sock" }));
        let config = config(Path::new("/run"), Path::new("/srv/b.sock"));
        assert_eq!(config["mounts"][1]["source"], "/srv");
        assert_eq!(config["entrypoint"][4], "/node-socket/b.sock");
    }
}
