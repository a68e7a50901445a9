//! Which activations share memory.

use super::step::{Activation, Slot, Step};

/// The buffer of each activation, and the size of each buffer.
pub struct Placement {
    pub buffer_of: Vec<usize>,
    pub sizes: Vec<usize>,
}

/// Gives every activation a buffer. Activations that are never needed at the same time may share one.
pub fn place(steps: &[Step], activations: &[Activation]) -> Placement {
    let root = |slot: Slot| activations[slot].alias_of.unwrap_or(slot);
    // The activation that `step` may overwrite with `out`.
    let replaced_by = |step: &Step, out: Slot| {
        let old = root(step.replaces()?);
        let reads = step.reads().into_iter().filter(|slot| root(*slot) == old).count();
        let same_size =
            activations[old].dims.iter().product::<usize>() == activations[out].dims.iter().product::<usize>();
        (reads == 1 && same_size).then_some(old)
    };
    let mut last_read = vec![0; activations.len()];
    for (i, step) in steps.iter().enumerate() {
        step.reads().into_iter().for_each(|slot| last_read[root(slot)] = i);
    }
    let mut buffer_of = vec![0; activations.len()];
    let mut sizes: Vec<usize> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    for (i, step) in steps.iter().enumerate() {
        if let Some(slot) = step.writes() {
            let size: usize = activations[slot].dims.iter().product();
            let replaced = replaced_by(step, slot).filter(|old| last_read[*old] == i);
            // The smallest free buffer that is large enough, or else the largest one, enlarged.
            let fit = (0..free.len()).min_by_key(|&f| match sizes[free[f]].checked_sub(size) {
                Some(spare) => (0, spare),
                None => (1, size - sizes[free[f]]),
            });
            buffer_of[slot] = match (replaced, fit) {
                (Some(old), _) => buffer_of[old],
                (None, Some(f)) => free.swap_remove(f),
                (None, None) => {
                    sizes.push(0);
                    sizes.len() - 1
                }
            };
            sizes[buffer_of[slot]] = sizes[buffer_of[slot]].max(size);
        }
        // Buffers become free after the step, because only a replaced activation may lie where a step writes.
        let mut dead: Vec<Slot> = step.reads().into_iter().map(root).collect();
        dead.sort_unstable();
        dead.dedup();
        let written = step.writes().map(|slot| buffer_of[slot]);
        free.extend(
            dead.into_iter()
                .filter(|slot| last_read[*slot] == i)
                .map(|slot| buffer_of[slot])
                .filter(|buffer| Some(*buffer) != written),
        );
    }
    let buffer_of = (0..buffer_of.len()).map(|slot| buffer_of[root(slot)]).collect();
    Placement { buffer_of, sizes }
}
