//! Letting a node in: what it asks before it is a member, and what it is told.
//!
//! It asks twice over TLS that it trusts by the token's fingerprint: first what was planned for it, so that it can see whether its
//! ports and its pool are there *before* the token is used up; then for its certificate.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::consensus::{Consensus, Epoch};
use super::local;
use super::tls::{Authority, Credentials, Fingerprint};
use super::token::Token;
use crate::api::{AddNode, ApiError, Code, HowtoJoin, JoinTicket};
use crate::cluster::{Command, NodeKind, Ports, TokenHash};
use crate::units::{ClusterId, Name, NodeId};

/// What a node asks that wants to join.
#[derive(Serialize, Deserialize)]
pub struct Knock {
    /// The node that the token is for.
    pub node: Name,
    /// The token's secret.
    pub secret: [u8; 16],
    /// Absent at first; with it the token is used up.
    pub enter: Option<Enter>,
}

/// The second question.
#[derive(Serialize, Deserialize)]
pub struct Enter {
    /// The node's address for its peers.
    pub address: IpAddr,
    /// Its ports.
    pub ports: Ports,
    /// Its public key, as PEM. The private one never leaves it.
    pub public_key: String,
}

/// The answer to the first question.
#[derive(Debug, Serialize, Deserialize)]
pub struct Planned {
    /// The cluster.
    pub cluster: ClusterId,
    /// Which node it will be.
    pub node: NodeId,
    /// The address it was announced with.
    pub address: IpAddr,
    /// And the ports.
    pub ports: Ports,
    /// What it will be for.
    pub kind: NodeKind,
}

/// The answer to the second question.
#[derive(Serialize, Deserialize)]
pub struct Welcome {
    /// The control plane's epoch.
    pub epoch: Epoch,
    /// The authority's certificate and key, as PEM.
    pub ca: String,
    /// See [`ca`](Self::ca).
    pub ca_key: String,
    /// The node's certificate, as PEM.
    pub certificate: String,
    /// The members and their certificates' fingerprints.
    pub told: Vec<(NodeId, String)>,
}

/// Either answer, or why not.
#[derive(Serialize, Deserialize)]
enum Answer {
    Planned(Planned),
    Welcome(Box<Welcome>),
    No(ApiError),
}

/// A member's side.
pub struct Doorkeeper {
    consensus: Consensus,
    cluster: ClusterId,
    credentials: Credentials,
    control: SocketAddr,
}

/// How long a token is good, in seconds, unless it is said.
const TOKEN_LIFE: u64 = 24 * 3600;
/// And at most: one that is forgotten must not open the cluster for ever.
const TOKEN_LIFE_MAX: u64 = 30 * 24 * 3600;

const PATIENCE: Duration = Duration::from_secs(10);

impl Doorkeeper {
    /// Lets nodes in with these credentials. `control` is where new nodes are sent to: this node's control port.
    pub fn new(consensus: Consensus, cluster: ClusterId, credentials: Credentials, control: SocketAddr) -> Self {
        Self { consensus, cluster, credentials, control }
    }

    /// Announces a node, and draws its token.
    pub async fn invite(&self, asked: AddNode) -> Result<JoinTicket, ApiError> {
        let (token, life) = (self.draw(asked.name.clone())?, life(asked.valid_for)?);
        let ports = local::ports(asked.port.unwrap_or_else(|| self.control.port()), None)?;
        let kind = if asked.witness { NodeKind::Witness } else { NodeKind::Storage };
        let (name, address) = (asked.name, asked.address);
        let expires = local::now() + life;
        let command = Command::InviteNode { name, address, ports, kind, token: token.hash(), expires };
        self.consensus.propose(command, PATIENCE).await?;
        Ok(self.ticket(token, life))
    }

    /// Draws another token for a node that was announced. The former one is void.
    pub async fn invite_again(&self, asked: HowtoJoin) -> Result<JoinTicket, ApiError> {
        let (token, life) = (self.draw(asked.node.clone())?, life(asked.valid_for)?);
        let (name, expires) = (asked.node, local::now() + life);
        self.consensus.propose(Command::RenewInvitation { name, token: token.hash(), expires }, PATIENCE).await?;
        Ok(self.ticket(token, life))
    }

    /// Answers a node that knocks.
    pub async fn answer(&self, request: &[u8]) -> Vec<u8> {
        let answer = match serde_json::from_slice::<Knock>(request) {
            Ok(knock) => self.let_in(knock).await.unwrap_or_else(Answer::No),
            Err(error) => {
                Answer::No(ApiError::new(Code::BadRequest, format_args!("the request to join cannot be read: {error}")))
            }
        };
        serde_json::to_vec(&answer).expect("an answer can be written as JSON")
    }

    async fn let_in(&self, knock: Knock) -> Result<Answer, ApiError> {
        let model = self.consensus.read(PATIENCE).await?;
        let token = TokenHash::of(&knock.secret);
        let invited = model.node_named(&knock.node).map(|node| node.address)?;
        let address = knock.enter.as_ref().map_or(invited, |enter| enter.address);
        let id = model.check_invitation(&knock.node, token, address, local::now())?;
        let node = model.node(id)?;
        let Some(Enter { address, ports, public_key }) = knock.enter else {
            let (cluster, ports, kind) = (self.cluster, node.ports, node.kind);
            return Ok(Answer::Planned(Planned { cluster, node: id, address: invited, ports, kind }));
        };
        let authority = Authority::from_pem(&self.credentials.ca, &self.credentials.ca_key)?;
        let serial = u64::from_le_bytes(local::random_bytes());
        let issued = authority.issue(self.cluster, id, &node.name, address, &public_key, serial)?;
        let (name, certificate, now) = (knock.node, issued.certificate, local::now());
        let redeem = Command::RedeemInvitation { name, token, address, ports, certificate, now };
        self.consensus.propose(redeem, PATIENCE).await?;
        let members = model.nodes.values().filter_map(|node| Some((node.id, node.certificate.as_ref()?.fingerprint.clone())));
        Ok(Answer::Welcome(Box::new(Welcome {
            epoch: self.consensus.epoch(),
            ca: self.credentials.ca.clone(),
            ca_key: self.credentials.ca_key.clone(),
            certificate: issued.pem,
            told: members.collect(),
        })))
    }

    fn draw(&self, node: Name) -> Result<Token, ApiError> {
        let fingerprint = Fingerprint::of_pem(&self.credentials.ca)?;
        Ok(Token { fingerprint, secret: local::random_bytes(), node })
    }

    fn ticket(&self, token: Token, expires_in: u64) -> JoinTicket {
        let text = token.reveal();
        JoinTicket { node: token.node, contact: self.control, token: text, expires_in }
    }
}

/// For how many seconds a token is to be good.
fn life(asked: Option<u64>) -> Result<u64, ApiError> {
    let life = asked.unwrap_or(TOKEN_LIFE);
    if (1..=TOKEN_LIFE_MAX).contains(&life) {
        return Ok(life);
    }
    Err(ApiError::new(Code::BadRequest, "a token is good for at least a second, and at most 30 days")
        .hint("give --valid-for 1s to 30d"))
}

/// A new node's first question.
pub async fn ask_plan(contact: SocketAddr, token: &Token) -> Result<Planned, ApiError> {
    match knock(None, contact, token, None).await? {
        Answer::Planned(planned) => Ok(planned),
        Answer::No(refusal) => Err(refusal),
        Answer::Welcome(_) => Err(babble(contact)),
    }
}

/// A new node's second question.
pub async fn ask_entry(contact: SocketAddr, token: &Token, enter: Enter) -> Result<Welcome, ApiError> {
    let from = Some(enter.address);
    match knock(from, contact, token, Some(enter)).await? {
        Answer::Welcome(welcome) => Ok(*welcome),
        Answer::No(refusal) => Err(refusal),
        Answer::Planned(_) => Err(babble(contact)),
    }
}

async fn knock(from: Option<IpAddr>, contact: SocketAddr, token: &Token, enter: Option<Enter>) -> Result<Answer, ApiError> {
    let knock = Knock { node: token.node.clone(), secret: token.secret, enter };
    let request = serde_json::to_vec(&knock).expect("a question can be written as JSON");
    let answer = super::net::ask_to_join(from, contact, token.fingerprint, &request, PATIENCE * 2).await;
    let answer = answer.map_err(|error| match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(_)) => {
            ApiError::new(Code::Denied, format_args!("{contact} is not of the cluster that the token is for"))
                .hint("check the address, and copy the token whole; `blkrep howto-join` draws a new one")
        }
        _ => ApiError::new(Code::Unreachable, format_args!("cannot reach a member of the cluster at {contact}: {error}"))
            .hint("is its daemon running, and its control port (6999) open to this node?"),
    })?;
    serde_json::from_slice(&answer).map_err(|_| babble(contact))
}

fn babble(contact: SocketAddr) -> ApiError {
    ApiError::new(Code::Internal, format_args!("{contact} answered something else than it was asked"))
        .hint("are both nodes of the same version?")
}
