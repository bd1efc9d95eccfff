//! `blkrep demo`: three nodes on this machine, a crash in the middle of writes, and a count of what was lost.
//!
//! It needs no root, no LVM and no second machine. Each node is a daemon of this same program, below a root of its own in the
//! machine's temporary directory, on a loopback address of its own and a port that was free; a daemon that runs here already is
//! not disturbed. Data is written and read through NBD, as any client would.

mod ledger;
mod load;
mod nodes;
mod report;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::exit::Failure;
use super::given::Given;
use super::nbd::client::Volume;
use super::output::Output;
use super::session::Session;
use super::size::Size;
use super::wait;
use crate::api::state::ResourceState;
use crate::api::{AddVolume, ApiError, AskStatus, Code, OptionValues, ResourceStatus, Service};
use crate::units::{Name, human};
use load::Books;
use nodes::{Nodes, PATIENCE, late};
use report::{Report, rate};

/// The demo's resource.
const RESOURCE: &str = "demo";

/// For how long data is written before the primary is killed.
const WRITING: Duration = Duration::from_secs(2);

/// How long a resync may take.
const RESYNC: Duration = Duration::from_secs(120);

/// Runs the demo.
pub(super) async fn run(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let (output, keep) = (&session.output, given.flag("keep"));
    let mut report = Report::new(output);
    let mut nodes = Nodes::new(keep)?;
    let told = tokio::select! {
        told = story(&mut nodes, &mut report, given) => Some(told),
        _ = tokio::signal::ctrl_c() => None,
    };
    match told {
        Some(Ok(())) if keep => {
            report.print()?;
            explain(output, &nodes)
        }
        Some(Ok(())) => {
            nodes.tidy_up().await?;
            report.print()
        }
        None => {
            nodes.tidy_up().await?;
            Err(ApiError::new(Code::Denied, "interrupted").into())
        }
        Some(Err(failure)) => {
            nodes.stop().await;
            output.note(format_args!("The nodes' directories and logs are left in {}", nodes.directory.display()));
            Err(failure)
        }
    }
}

/// What is shown, step by step.
async fn story(nodes: &mut Nodes, report: &mut Report<'_>, given: Given<'_>) -> Result<(), Failure> {
    report.step("Starting three nodes on this machine");
    nodes.start(&["alpha", "beta", "gamma"]).await?;
    report.shown("Three nodes form a cluster with three votes", "alpha, beta, gamma");

    let bytes = given.one::<Size>("size").0.next_multiple_of(1 << 20);
    let replicas = if given.one::<String>("replicas") == "3" { 3 } else { 2 };
    let (primary, survivor) = make_volume(nodes, report, bytes, replicas).await?;
    let books = Books::new(bytes);

    let died = crash(nodes, report, &books, &primary).await?;
    let volume = take_over(nodes, report, &survivor, died).await?;
    read_back(report, &books, &volume, &format!("{survivor} has everything that {primary} has acknowledged")).await?;

    report.step(&format!("Writing all of it anew on {survivor}, while {primary} is down"));
    load::sweep(volume.clone(), books.clone()).await.map_err(broken)?;
    volume.flush().await.map_err(broken)?;
    report.shown("Writing goes on without the lost node", rate(bytes, report.elapsed()));

    resync(nodes, report, &primary).await?;
    read_back(report, &books, &volume, "Everything is still there").await?;
    close(volume).await?;
    compare(nodes, report, &[&primary, &survivor])?;

    report.step(&format!("Opening the volume on {primary}, which was killed"));
    let volume = Arc::new(open(nodes, &primary).await?);
    read_back(report, &books, &volume, &format!("{primary} serves it again")).await?;
    close(volume).await
}

/// Makes the volume, and returns two nodes that have a replica of it.
async fn make_volume(nodes: &Nodes, report: &mut Report<'_>, bytes: u64, replicas: u32) -> Result<(Name, Name), Failure> {
    report.step(&format!("Making a volume of {} with {replicas} replicas", human(bytes)));
    let client = &nodes.all[0].client;
    let (resource, options) = (demo(), OptionValues::default());
    let added = client
        .add_volume(AddVolume { resource, volume: None, bytes, deploy: Some(replicas), options, pool: None, metadata_pool: None })
        .await?;
    let ok = wait::until(PATIENCE, async || (look(nodes, 0).await?.state().0 == ResourceState::Ok).then_some(()));
    ok.await.ok_or_else(|| late("the volume was not deployed"))?;
    let names: Vec<&str> = added.nodes.iter().map(Name::as_str).collect();
    report.shown("A replicated volume is ready", format!("{}, on {}", human(added.bytes), names.join(", ")));
    match &added.nodes[..] {
        [primary, survivor, ..] => Ok((primary.clone(), survivor.clone())),
        _ => Err(ApiError::new(Code::Internal, "the volume has fewer than two replicas").into()),
    }
}

/// Writes, and kills the primary in the middle of it. Returns when that was.
async fn crash(nodes: &mut Nodes, report: &mut Report<'_>, books: &Books, primary: &Name) -> Result<Instant, Failure> {
    report.step(&format!("Writing on {primary}, then killing it (SIGKILL) in the middle of writes"));
    let volume = Arc::new(open(nodes, primary).await?);
    let writers = tokio::spawn(load::scatter(volume.clone(), books.clone()));
    tokio::time::sleep(WRITING).await;
    if writers.is_finished() {
        return Err(ApiError::new(Code::Internal, "the volume could not be written").into());
    }
    let died = Instant::now();
    nodes.kill(primary).await?;
    writers.await.map_err(|error| broken(io::Error::other(error)))?;
    let ledger = books.open();
    let (writes, blocks) = (ledger.acknowledged(), ledger.promised());
    report.shown("Writes are acknowledged, then the primary is killed", format!("{writes} writes, {blocks} blocks"));
    Ok(died)
}

/// Opens the volume on the survivor, and writes its last block there.
async fn take_over(nodes: &Nodes, report: &mut Report<'_>, survivor: &Name, died: Instant) -> Result<Arc<Volume>, Failure> {
    report.step(&format!("Opening the volume on {survivor}"));
    let volume = open(nodes, survivor).await?;
    // What is read is written back: the first write of the new reign, and no change of the data.
    let last = volume.bytes() - 4096;
    let block = volume.read(last, 4096).await.map_err(broken)?;
    volume.write(last, &block).await.map_err(broken)?;
    report.measured("From the kill to the first write on the survivor", format!("{survivor} is primary"), died.elapsed());
    Ok(Arc::new(volume))
}

/// Reads the whole volume and checks every block.
async fn read_back(report: &mut Report<'_>, books: &Books, volume: &Arc<Volume>, what: &str) -> Result<(), Failure> {
    report.step("Reading it back and comparing every block");
    let bytes = load::verify(volume.clone(), books.clone()).await.map_err(broken)?;
    let promised = books.open().promised();
    report.shown(what, format!("{promised} of {promised} blocks, {} read", human(bytes)));
    Ok(())
}

/// Starts the killed node again, and waits until its replica is up to date.
async fn resync(nodes: &mut Nodes, report: &mut Report<'_>, killed: &Name) -> Result<(), Failure> {
    report.step(&format!("Starting {killed} again"));
    nodes.restart(killed).await?;
    let other = nodes.all.iter().position(|node| node.name != *killed).expect("there are three nodes");
    let (mut seen, began) = (0, Instant::now());
    let ok = wait::until(RESYNC, async || {
        let status = look(nodes, other).await?;
        let target = status.replicas.iter().find(|replica| replica.node == *killed)?;
        if let Some(resync) = status.resync_of(target) {
            seen = seen.max(resync.total);
            report.progress(resync);
        }
        (status.state().0 == ResourceState::Ok).then_some(())
    });
    let ok = ok.await;
    report.progress_ends();
    ok.ok_or_else(|| late("the resync did not end"))?;
    let time = began.elapsed();
    let result = if seen == 0 { "up to date".to_owned() } else { rate(seen, time) };
    report.measured(&format!("{killed} is up to date again"), result, time);
    Ok(())
}

/// Compares the replicas' files.
fn compare(nodes: &Nodes, report: &mut Report<'_>, names: &[&Name]) -> Result<(), Failure> {
    report.step("Comparing the replicas' files byte for byte");
    let files: Vec<PathBuf> =
        names.iter().map(|name| data_file(&nodes.named(name).root.file_pool())).collect::<Result<_, _>>()?;
    let failed = |error: io::Error| Failure::io("cannot compare the replicas' files", &error);
    let [one, other] = [0, 1].map(|at: usize| File::open(&files[at]));
    let equal = equal_bytes(one.map_err(failed)?, other.map_err(failed)?).map_err(failed)?;
    match equal {
        Ok(bytes) => {
            report.shown("The replicas are equal, byte for byte", human(bytes));
            Ok(())
        }
        Err(at) => Err(ApiError::new(Code::Internal, format_args!("the replicas' files differ at byte {at}")).into()),
    }
}

/// How many bytes two files have that are equal; or where the first difference is.
fn equal_bytes(mut one: impl Read, mut other: impl Read) -> io::Result<Result<u64, u64>> {
    const PIECE: usize = 1 << 20;
    let (mut a, mut b, mut at) = (Vec::with_capacity(PIECE), Vec::with_capacity(PIECE), 0);
    loop {
        a.clear();
        b.clear();
        one.by_ref().take(PIECE as u64).read_to_end(&mut a)?;
        other.by_ref().take(PIECE as u64).read_to_end(&mut b)?;
        let same = if a == b { a.len() } else { a.iter().zip(&b).take_while(|(x, y)| x == y).count() };
        at += same as u64;
        match (a.is_empty() && b.is_empty(), same == a.len() && same == b.len()) {
            (true, _) => return Ok(Ok(at)),
            (false, true) => {}
            (false, false) => return Ok(Err(at)),
        }
    }
}

/// The file of the demo's volume in a file pool.
fn data_file(pool: &Path) -> Result<PathBuf, Failure> {
    let name = format!("{RESOURCE}_00");
    let mut folders = vec![pool.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries =
            std::fs::read_dir(&folder).map_err(|error| Failure::io(format_args!("cannot read {}", folder.display()), &error))?;
        for entry in entries.filter_map(Result::ok) {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path if path.file_name().is_some_and(|file| file == name.as_str()) => return Ok(path),
                _ => {}
            }
        }
    }
    Err(ApiError::new(Code::NotFound, format_args!("there is no file {name} in {}", pool.display())).into())
}

/// The demo's resource, as one of the nodes sees it.
async fn look(nodes: &Nodes, asked: usize) -> Option<ResourceStatus> {
    let request = AskStatus { resource: Some(demo()) };
    nodes.all[asked].client.status(request).await.ok()?.resources.into_iter().next()
}

/// Opens the volume on a node, as soon as that is possible.
async fn open(nodes: &Nodes, name: &Name) -> Result<Volume, Failure> {
    let (socket, deadline) = (nodes.named(name).root.nbd_socket(), Instant::now() + PATIENCE);
    loop {
        match Volume::open(&socket, RESOURCE).await {
            Ok(volume) => return Ok(volume),
            Err(error) if Instant::now() > deadline => {
                return Err(Failure::io(format_args!("cannot open the volume on {name}"), &error));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn close(volume: Arc<Volume>) -> Result<(), Failure> {
    volume.flush().await.map_err(broken)?;
    let volume = Arc::into_inner(volume).expect("nobody else uses the volume any more");
    volume.close().await.map_err(broken)
}

fn broken(error: io::Error) -> Failure {
    ApiError::new(Code::Internal, format_args!("the demo has failed: {error}")).into()
}

fn demo() -> Name {
    RESOURCE.parse().expect("the demo's name is a name")
}

/// How to go on with nodes that are kept.
fn explain(output: &Output, nodes: &Nodes) -> Result<(), Failure> {
    let first = nodes.all[0].root.path().display();
    let socket = nodes.all[0].root.nbd_socket();
    let mut text = format!(
        "\nThe nodes go on running. To look at them:\n\n  export BLKREP_ROOT={first}\n  blkrep status\n  \
         nbdinfo 'nbd+unix:///{RESOURCE}?socket={}'\n\nTo end them:\n\n",
        socket.display()
    );
    for node in &nodes.all {
        text += &format!("  blkrep --root {} shutdown -q --force\n", node.root.path().display());
    }
    output.text(format!("{text}  rm -r {}\n", nodes.directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_compared_to_their_last_byte() {
        let equal = |one: &[u8], other: &[u8]| equal_bytes(one, other).unwrap();
        assert_eq!(equal(b"abc", b"abc"), Ok(3));
        assert_eq!(equal(b"abc", b"abd"), Err(2));
        assert_eq!(equal(b"abc", b"abcd"), Err(3));
        let large = vec![7; 3 << 20];
        let mut other = large.clone();
        assert_eq!(equal(&large, &other), Ok(3 << 20));
        other[(2 << 20) + 5] = 8;
        assert_eq!(equal(&large, &other), Err((2 << 20) + 5));
    }
}
