//! The cluster that `init --force` and `join --force` make a node forget: set aside first, forgotten when the new one stands, and brought
//! back when nothing comes of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use drbdpool::{Pool, PoolError, PoolSpec};

use super::config::{Membership, consensus_file, membership_file, tls_directory, unusable};
use super::local;
use crate::api::setup::Root;
use crate::api::{ApiError, Code};
use crate::units::{ClusterId, NodeId};

/// A membership that was set aside.
#[derive(Debug)]
pub struct Former {
    /// Where it was, and where it is meanwhile: in the order in which it went.
    moved: Vec<(PathBuf, PathBuf)>,
    aside: PathBuf,
    /// The pool that was the former cluster's and is not any more.
    pool: Option<(PoolSpec, ClusterId, NodeId)>,
}

impl Former {
    /// Sets a node's membership aside, if it has one. Without it, what is left of an interrupted `init` or `join` goes.
    pub fn set_aside(root: &Root) -> Result<Self, ApiError> {
        let aside = root.state().join("former");
        let mut former = Self { moved: Vec::new(), aside, pool: None };
        if !membership_file(root).exists() {
            remove_leftovers(root)?;
            return Ok(former);
        }
        remove_directory(&former.aside)?;
        fs::create_dir(&former.aside).map_err(|error| unusable(&former.aside, &error))?;
        // First what makes it a membership: a crash in between leaves the leftovers of an interrupted `init`.
        let files = files(root).into_iter().chain([root.config_file()]);
        for from in files.filter(|file| file.exists()) {
            let to = former.aside.join(from.file_name().expect("these are files"));
            if let Err(error) = fs::rename(&from, &to) {
                former.bring_back();
                return Err(unusable(&from, &error));
            }
            former.moved.push((from, to));
        }
        Ok(former)
    }

    /// Makes a pool the new cluster's. The former cluster's own, when nothing is in it, is taken over.
    pub fn claim_pool(&mut self, spec: &PoolSpec, cluster: ClusterId, node: NodeId) -> Result<Box<dyn Pool>, ApiError> {
        let claimed = local::claim_pool(spec, cluster, node, None);
        let (Err(PoolError::OtherOwner { remedy, .. }), Some(owner)) = (&claimed, self.membership()) else {
            return claimed.map_err(ApiError::from);
        };
        match drbdpool::release(spec, &local::identity(owner.cluster, owner.node)?) {
            Ok(()) => self.pool = Some((spec.clone(), owner.cluster, owner.node)),
            Err(PoolError::NotEmpty { pool, volumes }) => {
                let message = format!("{pool} holds {volumes} volume(s) of the cluster that this node is to forget");
                return Err(ApiError::new(Code::InUse, message).hint(format_args!(
                    "--pool names another one, and leaves them where they are; if nobody needs them: {remedy}"
                )));
            }
            // It is somebody else's.
            Err(_) => return claimed.map_err(ApiError::from),
        }
        local::claim_pool(spec, cluster, node, None).map_err(ApiError::from)
    }

    /// The new cluster stands: forgets the former one.
    pub fn forget(self) {
        if let Err(error) = remove_directory(&self.aside) {
            tracing::warn!(%error, "the former cluster's files stay");
        }
    }

    /// Nothing came of it: all is as before. The new cluster has let go of the pool.
    pub fn bring_back(&mut self) {
        if let Some((spec, cluster, node)) = self.pool.take()
            && let Err(error) = local::claim_pool(&spec, cluster, node, None)
        {
            tracing::warn!(%error, "the pool is nobody's now");
        }
        // Last what makes it a membership.
        for (from, to) in self.moved.drain(..).rev() {
            if let Err(error) = remove(&from).and_then(|()| fs::rename(&to, &from)) {
                tracing::warn!(%error, path = %to.display(), "a file of the former cluster stays where it is");
            }
        }
        // Not while something is in it.
        let _ = fs::remove_dir(&self.aside);
    }

    fn membership(&self) -> Option<Membership> {
        let (_, file) = self.moved.first()?;
        serde_json::from_slice(&fs::read(file).ok()?).ok()
    }
}

/// Removes what an interrupted `init` or `join` has left; never a pool.
pub fn remove_leftovers(root: &Root) -> Result<(), ApiError> {
    files(root).into_iter().try_for_each(|file| remove(&file).map_err(|error| unusable(&file, &error)))
}

/// What a membership consists of, besides the settings.
fn files(root: &Root) -> [PathBuf; 4] {
    let log = consensus_file(root);
    [membership_file(root), log.clone(), log.with_extension("committed"), tls_directory(root)]
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

fn remove_directory(path: &Path) -> Result<(), ApiError> {
    remove(path).map_err(|error| unusable(path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(root: &Root) -> Membership {
        let member = Membership { cluster: ClusterId(7), node: NodeId(3), told: Vec::new() };
        fs::create_dir_all(tls_directory(root)).unwrap();
        fs::create_dir_all(root.config_file().parent().unwrap()).unwrap();
        for file in [consensus_file(root), tls_directory(root).join("node.key"), root.config_file()] {
            fs::write(file, "former").unwrap();
        }
        member.store(root).unwrap();
        member
    }

    #[test]
    fn a_membership_that_was_set_aside_comes_back_whole() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let member = member(&root);
        let spec: PoolSpec = format!("file:{}", dir.path().join("pool").display()).parse().unwrap();
        drop(local::claim_pool(&spec, member.cluster, member.node, None).unwrap());

        let mut former = Former::set_aside(&root).unwrap();
        assert_eq!(Membership::load(&root).unwrap(), None);
        drop(former.claim_pool(&spec, ClusterId(8), NodeId(0)).expect("nothing is in it"));
        drbdpool::release(&spec, &local::identity(ClusterId(8), NodeId(0)).unwrap()).unwrap();
        // What the new one has left.
        fs::create_dir_all(tls_directory(&root)).unwrap();
        fs::write(tls_directory(&root).join("node.key"), "new").unwrap();
        former.bring_back();

        assert_eq!(Membership::load(&root).unwrap(), Some(member.clone()));
        for file in [consensus_file(&root), tls_directory(&root).join("node.key"), root.config_file()] {
            assert_eq!(fs::read_to_string(&file).unwrap(), "former", "{}", file.display());
        }
        local::open_pool(&spec, member.cluster, member.node).expect("the pool is the former cluster's again");
        assert!(!root.state().join("former").exists());
    }

    #[test]
    fn a_pool_with_the_former_clusters_volumes_is_not_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let member = member(&root);
        let spec: PoolSpec = format!("file:{}", dir.path().join("pool").display()).parse().unwrap();
        let pool = local::claim_pool(&spec, member.cluster, member.node, None).unwrap();
        pool.create(&drbdpool::VolumeName::data("web", 0).unwrap(), 8 << 20).unwrap();
        drop(pool);

        let mut former = Former::set_aside(&root).unwrap();
        let refusal = former.claim_pool(&spec, ClusterId(8), NodeId(0)).unwrap_err();
        assert!(refusal.message.contains("1 volume") && refusal.hint.contains("--pool"), "{refusal:?}");
        former.bring_back();
        assert_eq!(local::open_pool(&spec, member.cluster, member.node).unwrap().list().unwrap().len(), 1);
        assert_eq!(Membership::load(&root).unwrap(), Some(member));
    }
}
