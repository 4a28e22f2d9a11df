//! One database: what its catalog says, and what is known of the statements sent to it.

mod marks;

use std::{
    collections::BTreeSet,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use thiserror::Error;
use tidegate_gate::{Gate, Turns, policy::Path};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, SemaphorePermit},
    task::spawn_blocking,
    time::timeout_at,
};

use crate::{
    catalog_line::{CatalogLine, Unanswered},
    definitions::Definitions,
    sql::{
        self, Catalog, CatalogRequest, Fault, Limits, NotUnderstood, Overlay, Parsed, Resolved, Rows, Shapes,
        Statements,
    },
    upstream::UpstreamSettings,
};

pub(crate) use marks::RunsBy;

/// How long the catalog's word counts, at the most. Definitions that change through the gate count at once; those that
/// others change, within this time.
pub(crate) const AGE: Duration = Duration::from_secs(30);

/// For how long the catalog counts as just read: what a text names and isn't there is looked for anew no sooner.
const FRESH: Duration = Duration::from_secs(1);

/// How much is remembered of the statements of one database, in bytes.
const REMEMBERED: usize = 16 << 20;

/// How many times a text may ask for more of the catalog: once a level of views, at the least.
const ROUNDS: usize = 32;

/// How many steps a [short](sql::SHORT) text may take beside the sessions, in milliseconds a few; what takes more is read on a
/// thread of its own, as a longer one is.
const FEW_STEPS: usize = 20_000;

/// Whose turn it is to have a text read on a thread of its own: one account has one of them at a time, however many
/// sessions it has. Syntax trees take a multiple of a text's size, so there are few for all.
pub(crate) static READERS: LazyLock<Turns> = LazyLock::new(|| Turns::new(1, 4));

/// How much memory the trees of all of them may take, one permit a MiB: as much as the largest does.
static ROOM: Semaphore = Semaphore::const_new(MEGABYTES);

const MEGABYTES: usize = sql::LARGEST_TREE >> 20;

/// How long it may take to understand a message, the turns of others before it and the catalog's answers included.
pub(crate) const UNDERSTANDING: Duration = Duration::from_secs(30);

/// Why a text is refused before any rule is asked.
#[derive(Debug, Error)]
pub(crate) enum Misunderstood {
    /// The text itself.
    #[error(transparent)]
    Text(#[from] NotUnderstood),
    /// The catalog could not be read.
    #[error("the gate could not read the database's catalog: {0}")]
    Catalog(String),
    /// That took longer than [`UNDERSTANDING`].
    #[error(
        "the gate could not understand the statement within {UNDERSTANDING:?}, others' turns and the catalog's answers \
         included: try again, or send a shorter one"
    )]
    TimeLimit,
}

/// By which word of the catalog a text is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// What is remembered.
    Remembered,
    /// What it says when it is asked for this text.
    Now,
}

/// Where a text is read.
#[derive(Debug)]
enum Place {
    /// Where it came in, from its tree, in [few steps](FEW_STEPS).
    Here(Parsed),
    /// On a thread of its own, up to this moment.
    Aside { until: tokio::time::Instant },
}

/// What a text does.
#[derive(Debug, Clone)]
pub(crate) struct Understood {
    /// Its statements.
    pub(crate) statements: Arc<Statements>,
    /// The catalog's generation that they were understood at.
    pub(crate) generation: u64,
}

/// A function by its oid: the types of what it takes, and on the next line what it is called, with its arguments.
pub(crate) const FUNCTION: &str = "\
SELECT p.proargtypes::pg_catalog.text || E'\\n' || pg_catalog.format('%I.%I(%s)', n.nspname, p.proname,
  pg_catalog.pg_get_function_identity_arguments(p.oid))
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE p.oid = $1::pg_catalog.text::pg_catalog.oid";

/// A function.
#[derive(Debug)]
pub(crate) struct Function {
    /// As the server writes it, with its schema and arguments.
    pub(crate) name: String,
    /// The types of its arguments, by oid.
    pub(crate) types: Arc<[u32]>,
}

/// One database, as one resource leads to it.
#[derive(Debug)]
pub(crate) struct Database {
    name: Arc<str>,
    settings: Arc<UpstreamSettings>,
    limits: Limits,
    /// How long the catalog's word counts.
    age: Duration,
    facts: Arc<Facts>,
    /// Whose turn it is to look something up: of one account it is one text's, so that whoever asks for what takes long, or
    /// fails, holds up the others by one look-up at the most.
    turns: Turns,
    line: tokio::sync::Mutex<Option<CatalogLine>>,
    marked: Mutex<Option<marks::Marked>>,
}

/// What is known of one database of one server, whichever bundles and resources lead there.
#[derive(Debug)]
pub(crate) struct Facts {
    shapes: Shapes,
    catalog: Arc<Catalog>,
    /// When the catalog was begun to be read, and after how many changes.
    since: Mutex<(Instant, u64)>,
    definitions: Arc<Definitions>,
}

impl Facts {
    /// Nothing is known yet.
    pub(crate) fn new(definitions: Arc<Definitions>) -> Self {
        let since = Mutex::new((Instant::now(), definitions.changes()));
        Self { shapes: Shapes::new(REMEMBERED), catalog: Arc::default(), since, definitions }
    }

    /// Who changes and who reads the definitions.
    pub(crate) fn definitions(&self) -> &Arc<Definitions> {
        &self.definitions
    }

    /// Changes whenever something that was understood before must be understood anew.
    fn generation(&self, age: Duration, now: Instant) -> u64 {
        let mut since = self.since();
        let changes = self.definitions.changes();
        if since.1 != changes || now.saturating_duration_since(since.0) > age {
            self.catalog.clear();
            *since = (now, changes);
        }
        self.catalog.generation()
    }

    /// Forgets what the catalog said, unless it was [just](FRESH) read: whoever names what isn't there would have all that
    /// others send looked up anew each time. True: it is forgotten.
    fn renew(&self, now: Instant) -> bool {
        let mut since = self.since();
        let is_due = now.saturating_duration_since(since.0) > FRESH;
        if is_due {
            self.catalog.clear();
            since.0 = now;
        }
        is_due
    }

    fn since(&self) -> MutexGuard<'_, (Instant, u64)> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Database {
    pub(crate) fn new(
        name: Arc<str>,
        settings: Arc<UpstreamSettings>,
        limits: Limits,
        age: Duration,
        facts: Arc<Facts>,
    ) -> Self {
        Self {
            name,
            settings,
            limits,
            age,
            facts,
            turns: Turns::new(1, 1),
            line: tokio::sync::Mutex::default(),
            marked: Mutex::default(),
        }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// How the gate connects to it.
    pub(crate) fn settings(&self) -> &UpstreamSettings {
        &self.settings
    }

    /// The longest statement that is looked at, in bytes.
    pub(crate) fn longest_statement(&self) -> usize {
        self.limits.bytes
    }

    /// Who changes and who reads its definitions.
    pub(crate) fn definitions(&self) -> &Arc<Definitions> {
        self.facts.definitions()
    }

    /// Changes whenever something that was understood before must be understood anew.
    pub(crate) fn generation(&self) -> u64 {
        self.facts.generation(self.age, Instant::now())
    }

    /// The columns whose values one holds that the server names by its relation's oid and its own number, as far as is known.
    pub(crate) fn sources(&self, oid: u32, number: i16) -> Vec<Path> {
        self.facts.catalog.sources(oid, number)
    }

    /// What a text does at this generation, if that is remembered.
    pub(crate) fn known(&self, text: &str, generation: u64) -> Option<Arc<Statements>> {
        self.facts.shapes.get(text, generation)
    }

    /// Which columns the values of a text have to do with, in a session that has created these relations. None where that can't be
    /// told at once.
    pub(crate) fn ties(&self, text: &str, overlay: &Overlay) -> Option<Vec<sql::Tie>> {
        if text.len() > sql::SHORT {
            return None;
        }
        let parsed = sql::parse(text, &self.limits).ok()?;
        sql::ties(FEW_STEPS, &parsed, &self.facts.catalog, overlay)
    }

    /// What a text does in a session that has created these relations.
    pub(crate) async fn understand(
        self: Arc<Self>,
        text: Arc<str>,
        overlay: Arc<Overlay>,
        gate: Gate,
        facts: Word,
        until: tokio::time::Instant,
    ) -> Result<Understood, Misunderstood> {
        let reading = async {
            if text.len() <= sql::SHORT {
                let place = Place::Here(sql::parse(&text, &self.limits)?);
                match self.read(&text, &overlay, &gate, facts, place).await {
                    Err(Misunderstood::Text(not)) if not.fault == Fault::Tangled => {}
                    read => return read,
                }
            }
            self.read(&text, &overlay, &gate, facts, Place::Aside { until }).await
        };
        timeout_at(until, reading).await.unwrap_or(Err(Misunderstood::TimeLimit))
    }

    async fn read(
        &self,
        text: &Arc<str>,
        overlay: &Arc<Overlay>,
        gate: &Gate,
        facts: Word,
        place: Place,
    ) -> Result<Understood, Misunderstood> {
        let (catalog, mut renewed) = match facts {
            Word::Remembered => (self.facts.catalog.clone(), None),
            Word::Now => (Arc::default(), Some(false)),
        };
        let mut turn = None;
        // Each time that the catalog is asked, the text is followed once before that, and once when its turn has come.
        for _ in 0..2 * ROUNDS {
            let generation = self.generation();
            match self.resolve(text, overlay, gate, &catalog, &place).await? {
                Resolved::Known(statements) if statements.doubtful && renewed.is_none() => {
                    renewed = Some(self.facts.renew(Instant::now()));
                }
                Resolved::Known(statements) => {
                    // What isn't there may be by now: that is looked for the next time.
                    if overlay.is_empty() && facts == Word::Remembered && renewed != Some(false) {
                        self.facts.shapes.insert(text, &statements, generation);
                    }
                    return Ok(Understood { statements, generation });
                }
                // Others of its account may look the same up before.
                Resolved::Needs(_) if turn.is_none() => {
                    turn = Some(self.turns.of(gate.principal().process.sharer()).await);
                }
                Resolved::Needs(request) => {
                    self.look_up(&request, &catalog, gate).await?;
                    turn = None;
                }
            }
        }
        Err(Misunderstood::Catalog("its views lead ever further".into()))
    }

    /// Follows a text once. Aside, its tree is built anew each time: no thread and no memory waits for a catalog's answer.
    async fn resolve(
        &self,
        text: &Arc<str>,
        overlay: &Arc<Overlay>,
        gate: &Gate,
        catalog: &Arc<Catalog>,
        place: &Place,
    ) -> Result<Resolved, Misunderstood> {
        let until = match place {
            Place::Here(parsed) => return Ok(sql::resolve_within(FEW_STEPS, parsed, catalog, overlay)?),
            Place::Aside { until } => *until,
        };
        let turn = READERS.of(gate.principal().process.sharer()).await;
        let (text, overlay, catalog, limits) = (text.clone(), overlay.clone(), catalog.clone(), self.limits);
        let reader = spawn_blocking(move || {
            let _turn = turn;
            let reading = async {
                let _room = room(sql::tree(&text, sql::LARGEST_TREE)?).await;
                // What it was read into is given back here, too: that takes almost as long as building it.
                let parsed = sql::parse(&text, &limits)?;
                Ok(sql::resolve_within(sql::WORK, &parsed, &catalog, &overlay)?)
            };
            // Whoever waits for it may have left.
            let reading = async { timeout_at(until, reading).await };
            Handle::current().block_on(reading).unwrap_or(Err(Misunderstood::TimeLimit))
        });
        reader
            .await
            .unwrap_or_else(|_| Err(NotUnderstood::new("the gate could not read the statement").into()))
    }

    /// Reads more of the catalog.
    async fn look_up(
        &self,
        request: &CatalogRequest,
        catalog: &Catalog,
        gate: &Gate,
    ) -> Result<(), Misunderstood> {
        let generation = catalog.generation();
        let mut line = self.line.lock().await;
        let rows = Rows {
            relations: self.rows(&mut line, sql::RELATIONS, &request.relations, gate).await?,
            functions: self.rows(&mut line, sql::FUNCTIONS, &request.functions, gate).await?,
            types: self.rows(&mut line, sql::TYPES, &request.types, gate).await?,
        };
        catalog
            .learn(generation, request, &rows)
            .map_err(|error| Misunderstood::Catalog(error.to_string()))?;
        if !std::ptr::eq(catalog, &*self.facts.catalog) {
            self.facts.catalog.note_origins(catalog);
        }
        Ok(())
    }

    /// A function that is called by its oid; none if there is none.
    pub(crate) async fn function(&self, oid: u32, gate: &Gate) -> Result<Option<Function>, Misunderstood> {
        let _turn = self.turns.of(gate.principal().process.sharer()).await;
        let mut line = self.line.lock().await;
        let rows = self.answer(&mut line, FUNCTION, &[&oid.to_string()], gate).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let wrong = || Misunderstood::Catalog("it tells of a function what can't be read".into());
        let (types, name) = row.split_once('\n').ok_or_else(wrong)?;
        let types = types.split_whitespace().map(|oid| oid.parse().map_err(|_| wrong()));
        Ok(Some(Function { name: name.to_owned(), types: types.collect::<Result<_, _>>()? }))
    }

    async fn rows(
        &self,
        line: &mut Option<CatalogLine>,
        query: &str,
        names: &BTreeSet<Arc<str>>,
        gate: &Gate,
    ) -> Result<Vec<String>, Misunderstood> {
        match names.is_empty() {
            true => Ok(Vec::new()),
            false => self.answer(line, query, &[&sql::names_parameter(names)], gate).await,
        }
    }

    /// Asks over the line that is open, or a fresh one: a line that lay idle may be gone without a word. A line
    /// whose answer was not read to its end is never used again.
    async fn answer(
        &self,
        line: &mut Option<CatalogLine>,
        query: &str,
        parameters: &[&str],
        gate: &Gate,
    ) -> Result<Vec<String>, Misunderstood> {
        if let Some(mut open) = line.take() {
            let answer = open.query(query, parameters).await;
            if !matches!(answer, Err(Unanswered::Lost(_))) {
                *line = Some(open);
                return answer.map_err(Misunderstood::from);
            }
        }
        let mut open =
            CatalogLine::open(gate, &self.settings, &self.name).await.map_err(Misunderstood::Catalog)?;
        let answer = open.query(query, parameters).await;
        if !matches!(answer, Err(Unanswered::Lost(_))) {
            *line = Some(open);
        }
        answer.map_err(Misunderstood::from)
    }
}

impl From<Unanswered> for Misunderstood {
    fn from(why: Unanswered) -> Self {
        Self::Catalog(why.to_string())
    }
}

/// Waits until there is room for a tree of so many bytes.
async fn room(bytes: usize) -> Option<SemaphorePermit<'static>> {
    let megabytes = bytes.div_ceil(1 << 20).min(MEGABYTES);
    // It is never closed.
    ROOM.acquire_many(megabytes.try_into().ok()?).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalog_counts_for_as_long_as_the_resource_says() {
        let facts = Facts::new(Arc::default());
        let begun = facts.since().0;
        let generation = facts.generation(AGE, begun);
        let later = begun + Duration::from_secs(2);
        assert_eq!(facts.generation(AGE, later), generation);
        assert_ne!(facts.generation(Duration::from_secs(1), later), generation);
    }

    #[test]
    fn what_is_not_there_clears_the_catalog_for_all_no_more_than_once_a_second() {
        let facts = Facts::new(Arc::default());
        let begun = facts.since().0;
        let generation = facts.generation(AGE, begun);
        assert!(!facts.renew(begun + FRESH));
        assert_eq!(facts.generation(AGE, begun), generation);
        let later = begun + FRESH + Duration::from_millis(1);
        assert!(facts.renew(later));
        assert_ne!(facts.generation(AGE, begun), generation);
        assert!(!facts.renew(later));
    }
}
