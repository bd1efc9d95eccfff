//! What was typed, by name and type.

use clap::ArgMatches;

/// The arguments of a verb. The table says which there are and of which type; asking for another is a defect, which the tests
/// of the table find.
#[derive(Clone, Copy)]
pub(super) struct Given<'a>(&'a ArgMatches);

impl<'a> Given<'a> {
    /// The arguments of one command line.
    pub(super) fn new(matches: &'a ArgMatches) -> Self {
        Self(matches)
    }

    /// An argument that must be given, or has a default.
    pub(super) fn one<T: Clone + Send + Sync + 'static>(&self, id: &str) -> T {
        self.maybe(id).unwrap_or_else(|| panic!("the parser lets no command line without '{id}' pass"))
    }

    /// An argument that can be left out.
    pub(super) fn maybe<T: Clone + Send + Sync + 'static>(&self, id: &str) -> Option<T> {
        self.0.get_one::<T>(id).cloned()
    }

    /// An argument that can be given many times.
    pub(super) fn many<T: Clone + Send + Sync + 'static>(&self, id: &str) -> Vec<T> {
        self.0.get_many::<T>(id).into_iter().flatten().cloned().collect()
    }

    /// A flag; one that the verb does not have is not set.
    pub(super) fn flag(&self, id: &str) -> bool {
        self.0.try_get_one::<bool>(id).ok().flatten().copied().unwrap_or(false)
    }
}
