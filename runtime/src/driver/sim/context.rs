//! Which world, node and shard the code now running belongs to.
//!
//! Set while the world polls or drops a task, and at no other time; its presence is what makes a call
//! of the runtime a simulated one.

use super::world::WorldState;
use crate::driver::{self, SimulationGuard};
use std::{cell::RefCell, rc::Rc};

/// A node in one of its lives. A crash ends the life; whatever still holds the old one gets errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Life {
    pub(crate) node: usize,
    pub(crate) incarnation: u32,
}

/// Where the running code lives.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) world: Rc<WorldState>,
    pub(crate) life: Life,
    /// Which executor of the world: its tasks end together. See [`NODE_EXECUTOR`].
    pub(crate) executor: u32,
    /// The number of the shard among those it was started with.
    pub(crate) shard: u16,
}

/// The executor of what a world spawns on a node by itself; it never ends before the node does.
pub(crate) const NODE_EXECUTOR: u32 = 0;

thread_local! {
    static CURRENT: RefCell<Option<Context>> = const { RefCell::new(None) };
}

/// The context of the calling code, or None outside of every world.
pub(crate) fn try_current() -> Option<Context> {
    CURRENT.with(|current| current.borrow().clone())
}

/// The context of the calling code.
///
/// # Panics
/// Outside of a simulated task: simulated objects cannot be used from elsewhere.
pub(crate) fn current() -> Context {
    try_current().expect("called outside of a simulated task")
}

/// Makes `context` current until the guard drops.
pub(crate) fn enter(context: Context) -> Entered {
    let outer = CURRENT.with(|current| current.borrow_mut().replace(context));
    Entered { outer, _simulation: driver::enter_simulation() }
}

/// Restores the outer context when dropped.
pub(crate) struct Entered {
    outer: Option<Context>,
    _simulation: SimulationGuard,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let outer = self.outer.take();
        // The inner context may hold the last handle of its world: let go of it outside the borrow.
        let inner = CURRENT.with(|current| std::mem::replace(&mut *current.borrow_mut(), outer));
        drop(inner);
    }
}
