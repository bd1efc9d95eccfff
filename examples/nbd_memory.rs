//! An NBD server of a piece of memory: how `blkrep::nbd` is driven, on the simplest of all runtimes, a blocking thread for each
//! connection. `tests/nbd/peers.py` tries every case on it.
//!
//!     nbd_memory SOCKET NAME BYTES [--read-only] [--tls FOLDER]
//!
//! The folder has ca-cert.pem, server-cert.pem and server-key.pem; with it, TLS and a client certificate are required.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::{env, process, thread};

use blkrep::nbd::reply::{self, STATE_HOLE, STATE_ZERO, Status};
use blkrep::nbd::request::{self, Decoded};
use blkrep::nbd::{Action, BlockSizes, Errno, Export, Listed, Mode, Negotiation, Refusal, Request, Tag, TlsPolicy};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [socket, name, bytes, options @ ..] = arguments.as_slice() else {
        eprintln!("usage: nbd_memory SOCKET NAME BYTES [--read-only] [--tls FOLDER]");
        process::exit(2);
    };
    let tls = options.iter().skip_while(|option| *option != "--tls").nth(1).map(|folder| tls(folder)).transpose()?;
    let disk = Arc::new(Disk {
        name: name.clone(),
        read_only: options.iter().any(|option| option == "--read-only"),
        bytes: Mutex::new(vec![0; bytes.parse()?]),
        tls,
    });
    for client in UnixListener::bind(socket)?.incoming() {
        let (client, disk) = (client?, Arc::clone(&disk));
        // A client that breaks the protocol, or is gone, ends its thread and nothing else.
        thread::spawn(move || serve(client, &disk));
    }
    Ok(())
}

struct Disk {
    name: String,
    read_only: bool,
    bytes: Mutex<Vec<u8>>,
    tls: Option<Arc<ServerConfig>>,
}

/// A connection, within TLS or not.
trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

fn serve(client: UnixStream, disk: &Disk) -> Result<(), Failure> {
    let policy = if disk.tls.is_some() { TlsPolicy::Required } else { TlsPolicy::Off };
    let mut talk = Negotiation::new(policy);
    let mut stream: Box<dyn Stream> = Box::new(client.try_clone()?);
    loop {
        match talk.poll() {
            Action::Send(bytes) => stream.write_all(&bytes)?,
            Action::Receive => {
                let mut bytes = [0; 4096];
                match stream.read(&mut bytes)? {
                    0 => return Ok(()),
                    count => talk.feed(&bytes[..count]),
                }
            }
            Action::List => {
                talk.listed(Ok(&[Listed { name: disk.name.clone(), description: "memory".to_owned() }]));
            }
            Action::Open { name, .. } if name == disk.name => talk.opened(Ok(disk.export())),
            Action::Open { name, .. } => talk.opened(Err(Refusal::unknown(format!("there is no disk '{name}'")))),
            Action::StartTls => {
                let config = disk.tls.clone().ok_or("TLS was not offered")?;
                let mut tls = StreamOwned::new(ServerConnection::new(config)?, client.try_clone()?);
                while tls.conn.is_handshaking() {
                    tls.conn.complete_io(&mut tls.sock)?;
                }
                stream = Box::new(tls);
                talk.secured();
            }
            Action::Done { mode, early, .. } => return Transmission { disk, mode, stream, inbox: early, out: Vec::new() }.run(),
            Action::Close(reason) => return Err(reason.into()),
        }
    }
}

/// A client whose handshake is done.
struct Transmission<'a> {
    disk: &'a Disk,
    mode: Mode,
    stream: Box<dyn Stream>,
    inbox: Vec<u8>,
    out: Vec<u8>,
}

impl Transmission<'_> {
    fn run(mut self) -> Result<(), Failure> {
        loop {
            let size = self.disk.lock().len() as u64;
            let Some(decoded) = request::decode(&self.inbox, &self.mode, size)? else {
                if self.receive()? == 0 {
                    return Ok(());
                }
                continue;
            };
            let payload = self.payload(decoded)?;
            match decoded.request {
                Ok(Request::Disconnect) => return Ok(()),
                Ok(request) => self.carry_out(decoded.tag, request, &payload),
                Err(refusal) => reply::error(&self.mode, decoded.tag, refusal.errno, refusal.text, &mut self.out),
            }
            self.stream.write_all(&self.out)?;
            self.out.clear();
        }
    }

    fn receive(&mut self) -> io::Result<usize> {
        let mut bytes = [0; 65536];
        let count = self.stream.read(&mut bytes)?;
        self.inbox.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    /// Takes a request and the payload behind it from the inbox.
    fn payload(&mut self, decoded: Decoded) -> Result<Vec<u8>, Failure> {
        let end = decoded.taken + usize::try_from(decoded.payload())?;
        while self.inbox.len() < end {
            if self.receive()? == 0 {
                return Err("the client ended within a payload".into());
            }
        }
        let payload = self.inbox[decoded.taken..end].to_vec();
        self.inbox.drain(..end);
        Ok(payload)
    }

    fn carry_out(&mut self, tag: Tag, request: Request, payload: &[u8]) {
        let mut bytes = self.disk.lock();
        match request {
            Request::Read { offset, length, dont_fragment } => {
                let data = &bytes[range(offset, length.into())];
                read(&self.mode, tag, offset, length, dont_fragment, data, &mut self.out);
                return;
            }
            Request::BlockStatus { offset, length, one } => {
                let mut status = Status::begin(&self.mode, tag, length, one, &mut self.out);
                for piece in bytes[range(offset, length)].chunks(4096) {
                    let state = if piece.iter().all(|&byte| byte == 0) { STATE_HOLE | STATE_ZERO } else { 0 };
                    if !status.push(piece.len() as u64, state) {
                        break;
                    }
                }
                return status.finish();
            }
            Request::WriteZeroes { fast: true, length, .. } if length > 1 << 20 => {
                return reply::error(&self.mode, tag, Errno::NotSupported, "that is slow", &mut self.out);
            }
            Request::Write { offset, length, .. } => bytes[range(offset, length.into())].copy_from_slice(payload),
            Request::WriteZeroes { offset, length, .. } => bytes[range(offset, length)].fill(0),
            Request::Trim { .. } | Request::Cache { .. } | Request::Flush | Request::Disconnect => {}
        }
        self.out.extend_from_slice(&reply::done(&self.mode, tag));
    }
}

/// Answers a READ: in one piece, or by data and holes in stretches of 4096 bytes.
fn read(mode: &Mode, tag: Tag, offset: u64, length: u32, dont_fragment: bool, data: &[u8], out: &mut Vec<u8>) {
    if length == 0 || !reply::can_fragment(mode, dont_fragment) {
        out.extend_from_slice(&reply::data(mode, tag, offset, length, true));
        return out.extend_from_slice(data);
    }
    let (mut at, count) = (offset, data.chunks(4096).len());
    for (number, piece) in data.chunks(4096).enumerate() {
        let (length, last) = (u32::try_from(piece.len()).expect("at most 4096"), number + 1 == count);
        if piece.iter().all(|&byte| byte == 0) {
            out.extend_from_slice(&reply::hole(mode, tag, at, length, last));
        } else {
            out.extend_from_slice(&reply::data(mode, tag, at, length, last));
            out.extend_from_slice(piece);
        }
        at += u64::from(length);
    }
}

/// Checked requests lie within the export, which lies within memory.
fn range(offset: u64, length: u64) -> std::ops::Range<usize> {
    let index = |at: u64| usize::try_from(at).expect("memory is addressed by usize");
    index(offset)..index(offset + length)
}

impl Disk {
    fn export(&self) -> Export {
        Export {
            name: self.name.clone(),
            description: "memory".to_owned(),
            size: self.lock().len() as u64,
            read_only: self.read_only,
            blocks: BlockSizes::default(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tls(folder: &str) -> Result<Arc<ServerConfig>, Failure> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(format!("{folder}/ca-cert.pem"))?)?;
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build()?;
    let chain = vec![CertificateDer::from_pem_file(format!("{folder}/server-cert.pem"))?];
    let key = PrivateKeyDer::from_pem_file(format!("{folder}/server-key.pem"))?;
    Ok(Arc::new(ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(chain, key)?))
}
