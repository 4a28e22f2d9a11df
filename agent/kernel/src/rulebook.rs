//! The rules in force: how they get there, and how what runs already is brought under them.
//!
//! Connections and questions read a snapshot. What is written is locked for as long as writing takes, and never while processes
//! are looked through: that has a lock of its own, which nobody else waits for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, Guard};
use aya::Ebpf;

use crate::beside::Beside;
use crate::cgroup::Hierarchy;
use crate::governed::Governed;
use crate::pins::{OtherLayout, Pins, Removed};
use crate::rules::{Compiled, Destinations, Learned, Rules, SubjectBits};
use crate::sockets::{self, Ended, Iterators, OlderSocket, Whose};
use crate::tables::{LabelTable, OtherLabels, RuleTables, StampTable};
use crate::{KernelError, running};

/// Labels of an earlier agent are looked through anew while processes fork; each pass can find children that were born
/// during the one before.
const MAX_PASSES: usize = 8;

/// The rules, as the kernel has them.
pub(crate) struct Rulebook {
    /// What origins are read by.
    subjects: ArcSwap<Subjects>,
    labels: LabelTable,
    written: Mutex<Written>,
    /// Held by one replacement after the other, from its beginning to its end; taken before `written`.
    turn: Mutex<Turn>,
}

/// Which subjects there are.
#[derive(Debug, Clone)]
pub(crate) struct Subjects {
    pub(crate) bits: SubjectBits,
    /// Those of the active generation.
    pub(crate) active: u64,
}

/// What changes with each generation, and between them.
struct Written {
    tables: RuleTables,
    /// Of the active generation.
    destinations: Destinations,
}

/// What brings running processes under the rules.
struct Turn {
    stamps: StampTable,
    /// What ends sockets that were open before; none where the kernel has no such thing.
    iterators: Option<Iterators>,
    /// Whom the active generation governs.
    governed: Governed,
    /// Whose older sockets were ended last; none before any were.
    reached: Option<Governed>,
    /// What agents with maps of another layout left: attached until the first rules are in force here.
    others: Vec<(OtherLayout, OtherLabels)>,
}

/// How running processes were brought under new rules.
#[derive(Debug, Default)]
pub struct CaughtUp {
    /// Sockets that they had opened before.
    pub older: Vec<OlderSocket>,
    /// What could not be done. The rules are in force all the same, for whatever a governed process does next.
    pub trouble: Vec<KernelError>,
}

impl Rulebook {
    /// As an earlier agent left it.
    pub(crate) fn take(object: &mut Ebpf, pins: &Pins) -> Result<Self, KernelError> {
        let tables = RuleTables::take(object)?;
        let bits = SubjectBits::adopted(tables.subject_bits()?);
        Ok(Self {
            subjects: ArcSwap::from_pointee(Subjects { bits, active: 0 }),
            labels: LabelTable::take(object)?,
            written: Mutex::new(Written { tables, destinations: Destinations::default() }),
            turn: Mutex::new(Turn {
                stamps: StampTable::take(object)?,
                iterators: None,
                governed: Governed::default(),
                reached: None,
                others: others(pins)?,
            }),
        })
    }

    /// Whether anybody is governed, by this agent's rules or by those of an earlier one.
    pub(crate) fn governs(&self) -> Result<bool, KernelError> {
        let others = !lock(&self.turn).others.is_empty();
        Ok(others || lock(&self.written).tables.active()? != 0)
    }

    /// Has older sockets ended by these from now on.
    pub(crate) fn end_by(&self, iterators: Iterators) {
        lock(&self.turn).iterators = Some(iterators);
    }

    /// What origins are read by, as of now.
    pub(crate) fn subjects(&self) -> Guard<Arc<Subjects>> {
        self.subjects.load()
    }

    /// Which processes are labelled.
    pub(crate) fn labels(&self) -> &LabelTable {
        &self.labels
    }

    /// Puts a whole new generation into force, with what is decided beside destinations.
    ///
    /// # Errors
    ///
    /// The rules before stay in force.
    pub(crate) fn replace(
        &self,
        rules: &Rules,
        beside: &Beside,
        hierarchy: &Hierarchy,
    ) -> Result<(), KernelError> {
        let mut turn = lock(&self.turn);
        let number = lock(&self.written).tables.active()?.checked_add(1).ok_or_else(|| {
            KernelError::Rules(
                "the rules were replaced more often than can be counted: `tidegate detach`, then start the agent".to_owned(),
            )
        })?;
        let Subjects { mut bits, active } = Subjects::clone(&self.subjects());
        let mut compiled = Compiled::new(rules, number, &mut bits)?;
        let rest = beside.compile(rules, &bits, &compiled.governed)?;
        let mut written = lock(&self.written);
        // A bit that was given stays given, whatever becomes of the rules that asked for it.
        written.tables.keep_subject_bits(&bits.digests())?;
        self.publish(bits, active);
        let before = beside.replace(rest)?;
        if let Err(error) = self.put_in_force(&mut written, &mut compiled, hierarchy) {
            beside.put_back(before);
            return Err(error);
        }
        tracing::debug!(
            generation = number,
            destinations = compiled.destinations.len(),
            "kernel rules replaced"
        );
        (turn.governed, written.destinations) = compiled.into_parts();
        Ok(())
    }

    /// The last step makes the whole generation count. Origins are read by it just before: nobody whom it governs comes to an
    /// agent that doesn't know the subject.
    fn put_in_force(
        &self,
        written: &mut Written,
        compiled: &mut Compiled,
        hierarchy: &Hierarchy,
    ) -> Result<(), KernelError> {
        written.tables.write(compiled, hierarchy)?;
        let Subjects { bits, active } = Subjects::clone(&self.subjects());
        self.publish(bits.clone(), compiled.generation.subjects);
        written.tables.activate(compiled.generation.number).inspect_err(|_| self.publish(bits, active))
    }

    fn publish(&self, bits: SubjectBits, active: u64) {
        self.subjects.store(Arc::new(Subjects { bits, active }));
    }

    /// Labels the running processes that the rules in force govern, ends the sockets that governed processes opened before, if
    /// others are governed than when that was last done, and takes over from agents of another version: what they guard
    /// stays guarded until it is ended or stamped here.
    pub(crate) fn catch_up(&self, hierarchy: &Hierarchy) -> CaughtUp {
        let mut caught_up = CaughtUp::default();
        let mut turn = lock(&self.turn);
        let turn = &mut *turn;
        let found = lock(&self.written).tables.find_cgroups(&mut turn.governed, hierarchy);
        caught_up.note(found);
        let labelled = caught_up.note(running::label(&self.labels, &turn.governed, hierarchy));
        tracing::debug!(labelled, "running processes labelled");
        for (_, labels) in &turn.others {
            caught_up.note(self.copy(labels));
        }
        if turn.reached.as_ref() != Some(&turn.governed) {
            let active = self.subjects().active;
            let subjects_of =
                |pid| self.labels.get(pid).ok().flatten().map_or(0, |label| label.subjects & active);
            let whose = Whose { governed: &turn.governed, hierarchy };
            let Ended { older, trouble } =
                sockets::end_older(&mut turn.stamps, turn.iterators.as_mut(), subjects_of, &whose);
            caught_up.older = older;
            caught_up.trouble.extend(trouble);
        }
        // What went wrong is tried again the next time, and until then what others guard stays with them.
        if caught_up.trouble.is_empty() {
            turn.reached = Some(turn.governed.clone());
            caught_up.note(succeed(&mut turn.others));
        } else {
            turn.reached = None;
        }
        caught_up
    }

    /// Labels the processes here that an agent with maps of another layout had labelled.
    fn copy(&self, labels: &OtherLabels) -> Result<(), KernelError> {
        let here = self.bits_of(labels)?;
        for _ in 0..MAX_PASSES {
            if labels.copy_to(&self.labels, &here)? == 0 {
                break;
            }
        }
        Ok(())
    }

    /// The bits that the subjects of another agent's bits have here, given to them if they have none.
    fn bits_of(&self, labels: &OtherLabels) -> Result<Vec<usize>, KernelError> {
        let mut written = lock(&self.written);
        let Subjects { mut bits, active } = Subjects::clone(&self.subjects());
        let given = |digest| {
            bits.index(digest).ok_or_else(|| {
                KernelError::Rules(
                    "no bit is left for a subject of an earlier agent: `tidegate detach` frees all".into(),
                )
            })
        };
        let here = labels.subject_bits()?.into_iter().map(given).collect::<Result<_, _>>()?;
        written.tables.keep_subject_bits(&bits.digests())?;
        self.publish(bits, active);
        Ok(here)
    }

    /// Replaces all that is learned, in the generation in force.
    ///
    /// # Errors
    ///
    /// What was learned before stays in force, and of what is new perhaps a part.
    pub(crate) fn learn(&self, learned: &Learned) -> Result<(), KernelError> {
        let mut written = lock(&self.written);
        let Written { tables, destinations } = &mut *written;
        let change = destinations.learn(learned, &self.subjects().bits)?;
        destinations.trying(&change);
        tables.change(&change)?;
        destinations.changed(change);
        Ok(())
    }
}

impl CaughtUp {
    /// The outcome, if it is one.
    fn note<T>(&mut self, outcome: Result<T, KernelError>) -> Option<T> {
        outcome.map_err(|error| self.trouble.push(error)).ok()
    }
}

/// Detaches the programs of agents with maps of another layout.
fn succeed(others: &mut Vec<(OtherLayout, OtherLabels)>) -> Result<(), KernelError> {
    while let Some((layout, _)) = others.pop() {
        let Removed { links, maps } = layout.remove()?;
        tracing::info!(links, maps, "took over from an agent of another version");
    }
    Ok(())
}

/// What agents with maps of another layout left.
fn others(pins: &Pins) -> Result<Vec<(OtherLayout, OtherLabels)>, KernelError> {
    let mut others = Vec::new();
    for layout in pins.others()? {
        match OtherLabels::open(&layout.map("LABELS"), &layout.map("SUBJECT_BITS"))? {
            Some(labels) => others.push((layout, labels)),
            // Its maps were never finished, so nothing was attached to them.
            None => drop(layout.remove()?),
        }
    }
    Ok(others)
}

/// A panic while a table was locked leaves it as the kernel has it, which is what counts.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
