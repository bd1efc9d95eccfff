//! Replicas at rest are the same, byte for byte.

use super::super::world::World;

pub fn check(world: &World) -> Result<(), String> {
    let first = world.nodes[0].disk.sectors();
    let replicas = || world.nodes.iter().filter(|n| !n.diskless);
    for node in replicas() {
        let different = first.iter().zip(node.disk.sectors()).position(|(a, b)| a != b);
        if let Some(sector) = different {
            let values: Vec<u64> = replicas().map(|n| n.disk.sectors()[sector]).collect();
            return Err(format!("replicas differ at rest in sector {sector}: {values:?}"));
        }
    }
    Ok(())
}
