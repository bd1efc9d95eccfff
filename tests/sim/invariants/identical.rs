//! Replicas at rest are the same, byte for byte.

use super::super::world::World;

pub fn check(world: &World) -> Result<(), String> {
    let first = world.nodes[0].disk.sectors();
    for node in &world.nodes[1..] {
        let different = first.iter().zip(node.disk.sectors()).position(|(a, b)| a != b);
        if let Some(sector) = different {
            let values: Vec<u64> = world.nodes.iter().map(|n| n.disk.sectors()[sector]).collect();
            return Err(format!("replicas differ at rest in sector {sector}: {values:?}"));
        }
    }
    Ok(())
}
