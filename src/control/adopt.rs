//! A logical volume or file of this node becomes the first replica of a new resource.
//!
//! Here it is only looked at, and the cluster is told; the reconciler then adopts it, as often as it takes. Until the replica is
//! confirmed, a removal of the resource gives back what was adopted.

use std::collections::BTreeMap;
use std::sync::Arc;

use drbdpool::{Adoptable, Pool, PoolError, PoolSpec, VolumeName};

use super::service::Operations;
use super::{local, options};
use crate::api::{AddedVolume, AdoptVolume, ApiError, Code, OptionValues};
use crate::cluster::{Cluster, Command, DeployCount, FIRST_POOL};
use crate::units::{Name, VolumeId};

impl Operations {
    /// Adopts what this node has.
    pub(super) async fn adopted(&self, asked: AdoptVolume) -> Result<AddedVolume, ApiError> {
        let source: Adoptable = asked.source.parse().map_err(|error| ApiError::new(Code::BadRequest, error))?;
        let volume = VolumeName::data(asked.resource.as_str(), 0).map_err(|error| ApiError::new(Code::BadRequest, error))?;
        let model = self.agreed().await?;
        let candidates = self.candidates(&model, &source, asked.pool.as_ref())?;
        let shown = source.to_string();
        let look = move || find(&candidates, &source, &volume);
        let found = tokio::task::spawn_blocking(look).await.map_err(|error| ApiError::new(Code::Internal, error))?;
        let (pool, bytes) = found.map_err(refused)?;
        let resource = asked.resource;
        let mut commands = Vec::new();
        if model.resource_named(&resource).is_err() {
            let (name, options) = (resource.clone(), options::changes(&asked.options, &[]));
            commands.push(Command::CreateResource { name, options, properties: BTreeMap::new(), now: local::now() });
        } else if asked.options != OptionValues::default() {
            let message = format!("resource '{resource}' exists: its options are not set by adopting a volume");
            return Err(ApiError::new(Code::AlreadyExists, message).hint("`blkrep set-options` sets them"));
        }
        let (node, seed) = (self.node.me, local::random_seed());
        commands.push(Command::Adopt { resource: resource.clone(), node, pool, source: shown, bytes, seed });
        if let Some(count) = asked.deploy {
            let total = DeployCount::Total(usize::try_from(count).unwrap_or(usize::MAX));
            commands.push(self.deployment(&model, resource.clone(), total, None).await);
        }
        self.propose(Command::All(commands)).await?;
        let model = self.agreed().await?;
        Ok(AddedVolume { volume: VolumeId(0), bytes, nodes: Self::placed(&model, &resource) })
    }

    /// This node's pools that the source could be of.
    fn candidates(&self, model: &Cluster, source: &Adoptable, named: Option<&Name>) -> Result<Vec<Candidate>, ApiError> {
        let open = |name: &Name| Some((name.clone(), self.node.pool(name)?));
        if let Some(name) = named {
            let failure = || self.node.board.pool_failures().remove(name);
            return open(name).map(|one| vec![one]).ok_or_else(|| match failure() {
                Some(why) => ApiError::new(Code::Storage, format_args!("this node's pool '{name}' cannot be used: {why}")),
                None => ApiError::new(Code::NotFound, format_args!("this node has no pool '{name}'"))
                    .hint("`blkrep list-pools` shows the pools"),
            });
        }
        let names = model.nodes.get(&self.node.me).into_iter().flat_map(|node| node.pools.keys()).chain([&*FIRST_POOL]);
        let fits = |(_, pool): &Candidate| match (pool.spec(), source) {
            (PoolSpec::Lvm { volume_group: has } | PoolSpec::LvmThin { volume_group: has, .. }, _) => {
                matches!(source, Adoptable::LogicalVolume { volume_group, .. } if volume_group == has)
            }
            (PoolSpec::File { .. } | PoolSpec::FileThin { .. }, _) => matches!(source, Adoptable::File(_)),
        };
        let all: Vec<Candidate> = names.filter_map(open).filter(fits).collect();
        if !all.is_empty() {
            return Ok(all);
        }
        let (what, way) = match source {
            Adoptable::LogicalVolume { volume_group, .. } => {
                (format!("in volume group '{volume_group}'"), format!("`blkrep add-pool NAME lvm:{volume_group}` makes it one"))
            }
            Adoptable::File(_) => {
                ("of files".to_owned(), "`blkrep add-pool NAME file:DIRECTORY`, on the same file system, makes one".to_owned())
            }
        };
        Err(ApiError::new(Code::NotFound, format_args!("this node has no pool {what} that can be used")).hint(way))
    }
}

/// A pool that is open, with its name.
type Candidate = (Name, Arc<dyn Pool>);

/// The first pool that could adopt the source, and the source's size; else why not.
fn find(candidates: &[Candidate], source: &Adoptable, volume: &VolumeName) -> Result<(Name, u64), PoolError> {
    let mut refusals = Vec::new();
    for (name, pool) in candidates {
        match pool.adoptable(source, volume) {
            Ok(bytes) => return Ok((name.clone(), bytes)),
            Err(refusal) => refusals.push(refusal),
        }
    }
    // A thin pool and the group that it is in: the one that the volume is in knows more.
    let telling = refusals.iter().rposition(|refusal| !matches!(refusal, PoolError::OtherPools { .. }));
    let none = || PoolError::NotAdoptable { what: source.to_string(), why: "no pool takes it".to_owned() };
    Err(if refusals.is_empty() { none() } else { refusals.swap_remove(telling.unwrap_or(0)) })
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err hands over")]
fn refused(error: PoolError) -> ApiError {
    let code = match error {
        PoolError::NotAdoptable { .. } | PoolError::OtherPools { .. } => Code::InUse,
        PoolError::NoSpace { .. } => Code::NoSpace,
        _ => Code::Storage,
    };
    ApiError::new(code, &error)
}
