//! How the results of one action are shown, as they arrive.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_gate::{
    Masker,
    policy::{Path, ResultMasks, Show, Shown, Verdict},
};

use crate::{
    shown::{CannotShow, ColumnType, CopyFormat, CopyMasker, RowMasker},
    sql::{CopyOptions, Effect, Statement, Statements},
};

/// How the results of one action are shown.
#[derive(Debug)]
pub(super) struct Results {
    statements: Arc<Statements>,
    verdict: Option<Arc<Verdict>>,
    masker: Arc<Masker>,
    plain: bool,
    /// Every statement has a result whose origin is known.
    foreseen: bool,
    /// Masked columns may be among those that rows come from: the server's word on that is compared with the plan.
    compared: bool,
    at: Mutex<At>,
}

/// Something that the server says of rows otherwise than it was decided.
#[derive(Debug)]
pub(super) struct Contradiction {
    pub(super) why: String,
    /// It is how many columns there are: what was decided is of another table than there is by now, masked or not.
    pub(super) is_of_number: bool,
}

/// Where in its results the action is.
#[derive(Debug, Default)]
struct At {
    statement: usize,
    /// The rows of this statement were described; without a plan for them, they are shown as they are.
    described: bool,
    rows: Option<RowMasker>,
    copy: Option<CopyMasker>,
}

impl Results {
    pub(super) fn new(
        statements: Arc<Statements>,
        verdict: Option<Arc<Verdict>>,
        masker: Arc<Masker>,
    ) -> Self {
        let plain = verdict.as_ref().is_none_or(|verdict| {
            verdict.record_data.is_none() && verdict.results.iter().all(ResultMasks::is_plain)
        });
        let foreseen = statements.list.iter().all(|statement| statement.result.is_some());
        let gives_rows = |statement: &Statement| {
            statement.result.is_some() && !matches!(statement.effect, Effect::CopyOut(_))
        };
        let compared = verdict.as_ref().is_some_and(|verdict| verdict.fields.is_some())
            && statements.list.iter().any(gives_rows);
        Self { statements, verdict, masker, plain, foreseen, compared, at: Mutex::default() }
    }

    /// About how many bytes it holds.
    pub(super) fn weight(&self) -> usize {
        let masked = self.verdict.iter().flat_map(|verdict| &verdict.results);
        self.statements.weight + masked.map(|masks| size_of_val(&*masks.columns)).sum::<usize>()
    }

    /// The rows as shown go into the record.
    pub(super) fn are_recorded(&self) -> bool {
        self.verdict.as_ref().is_some_and(|verdict| verdict.record_data.is_some())
    }

    /// Rows and copy data go to the client as the server sent them, and nobody wants them recorded.
    pub(super) fn is_plain(&self) -> bool {
        self.plain
    }

    /// Rows may pass unseen: they are plain, and the statements are known to give rows at all, of which the server, where that
    /// matters, has said what they are.
    pub(super) fn pass_unseen(&self) -> bool {
        let are_described = || {
            let at = self.at();
            at.described && at.rows.is_none()
        };
        self.plain && self.foreseen && (!self.compared || are_described())
    }

    /// The server's word on where values come from is to be [compared](Self::contradiction) with what was decided on.
    pub(super) fn are_compared(&self) -> bool {
        self.compared
    }

    /// The server has to say what the rows are before they can be shown.
    pub(super) fn must_be_described(&self) -> bool {
        !self.plain || self.compared
    }

    /// What of the server's word on where each column's values come from contradicts what was decided on. Then they are masked
    /// whole from here on.
    pub(super) fn contradiction(
        &self,
        columns: &[ColumnType],
        origins: &[Vec<Path>],
    ) -> Option<Contradiction> {
        let fields = self.verdict.as_ref()?.fields.as_ref()?;
        let statement = self.at().statement;
        let masks = self.masks(statement).filter(|masks| !masks.hide_all())?;
        let planned = |index| matches!(masks.columns.get(index), Some(Shown::Masked(_)));
        let masked = |(index, sources): (usize, &Vec<Path>)| {
            let source = sources.iter().find(|source| fields.show(source).is_some())?;
            let why = || format!("column {} is {source}, which is masked", index + 1);
            (!planned(index)).then(|| Contradiction { why: why(), is_of_number: false })
        };
        let contradiction = match masks.whole.is_some() || masks.columns.len() == columns.len() {
            true => origins.iter().enumerate().find_map(masked),
            false => {
                let why = format!("{} columns where {} were expected", columns.len(), masks.columns.len());
                Some(Contradiction { why, is_of_number: true })
            }
        };
        if contradiction.is_some() {
            self.at().rows = self.whole(columns);
        }
        contradiction
    }

    /// Something of the results is masked or recorded, or would be where it looks like what must be.
    pub(super) fn may_be_masked(&self) -> bool {
        !self.plain || self.verdict.as_ref().is_some_and(|verdict| verdict.content.is_some())
    }

    /// What was decided; nothing, for the empty statement.
    pub(super) fn verdict(&self) -> Option<&Arc<Verdict>> {
        self.verdict.as_ref()
    }

    /// Masks are planned for these columns from here on. What cannot be shown the way its mask says is masked whole.
    pub(super) fn describe(&self, columns: &[ColumnType]) -> Option<CannotShow> {
        let mut at = self.at();
        at.described = true;
        let Some(masks) = self.masks(at.statement) else {
            at.rows = self.whole(columns);
            return None;
        };
        match RowMasker::new(masks, columns, self.masker.clone()) {
            Ok(rows) => {
                at.rows = rows;
                None
            }
            Err(cannot) => {
                at.rows = self.whole(columns);
                Some(cannot)
            }
        }
    }

    /// A COPY from the client is among the statements.
    pub(super) fn copies_in(&self) -> bool {
        self.statements.list.iter().any(|statement| matches!(statement.effect, Effect::CopyIn))
    }

    /// More than one statement came in the text.
    pub(super) fn are_several(&self) -> bool {
        self.statements.list.len() > 1
    }

    /// Appends a DataRow to `out` the way it is shown. A row that was not described cannot be shown.
    pub(super) fn row(&self, message: &[u8], body: &[u8], out: &mut Vec<u8>) -> Result<(), CannotShow> {
        let at = self.at();
        match &at.rows {
            Some(rows) => rows.data_row(body, out),
            None if !at.described => Err(CannotShow::Malformed("a row that was not described")),
            None => {
                out.extend_from_slice(message);
                Ok(())
            }
        }
    }

    /// Why a COPY among the statements cannot be shown the way the masks say, if so. To be known before it runs.
    pub(super) fn cannot_copy(&self) -> Option<CannotShow> {
        self.statements.list.iter().enumerate().find_map(|(index, statement)| {
            let Effect::CopyOut(options) = &statement.effect else { return None };
            let masks = self.masks(index)?;
            copy_format(options)
                .and_then(|format| {
                    let types = options.types.as_deref();
                    let columns = types.map_or(masks.columns.len(), <[u32]>::len);
                    CopyMasker::new(masks, format, types, columns, self.masker.clone()).map(drop)
                })
                .err()
        })
    }

    /// The server begins to copy out this many columns.
    pub(super) fn begin_copy(&self, columns: usize) -> Result<(), CannotShow> {
        let mut at = self.at();
        let statement = at.statement;
        let unplanned = CannotShow::Malformed("COPY data where none was expected");
        let masks = self.masks(statement).ok_or(unplanned.clone())?;
        let Some(Effect::CopyOut(options)) = self.statements.list.get(statement).map(|known| &known.effect)
        else {
            return Err(unplanned);
        };
        at.copy = CopyMasker::new(
            masks,
            copy_format(options)?,
            options.types.as_deref(),
            columns,
            self.masker.clone(),
        )?;
        Ok(())
    }

    /// Appends copied data to `out`, as CopyData messages, the way it is shown.
    pub(super) fn copy(&self, message: &[u8], body: &[u8], out: &mut Vec<u8>) -> Result<(), CannotShow> {
        match &mut self.at().copy {
            Some(copy) => copy.push(body, out),
            None => {
                out.extend_from_slice(message);
                Ok(())
            }
        }
    }

    /// The server has ended copying out: appends what was held back.
    pub(super) fn end_copy(&self, out: &mut Vec<u8>) -> Result<(), CannotShow> {
        self.at().copy.take().map_or(Ok(()), |mut copy| copy.finish(out))
    }

    /// The server has completed a statement of the action.
    pub(super) fn next_statement(&self) {
        if !self.plain || self.statements.list.len() > 1 {
            let mut at = self.at();
            at.statement += 1;
            at.described = false;
            at.rows = None;
            at.copy = None;
        }
    }

    fn masks(&self, statement: usize) -> Option<&ResultMasks> {
        let result = self.statements.list.get(statement)?.result?;
        self.verdict.as_ref()?.results.get(result)
    }

    /// Masks every column whole: for rows that no plan foresaw.
    fn whole(&self, columns: &[ColumnType]) -> Option<RowMasker> {
        let redact = Shown::Masked(Arc::new(Show::Redact("***".into())));
        let masks = ResultMasks { columns: Vec::new(), whole: Some(redact) };
        RowMasker::new(&masks, columns, self.masker.clone()).ok().flatten()
    }

    fn at(&self) -> MutexGuard<'_, At> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The layout that a COPY's options ask for; defaults as in the manual's page on COPY.
fn copy_format(options: &CopyOptions) -> Result<CopyFormat, CannotShow> {
    if options.binary {
        return Ok(CopyFormat::Binary);
    }
    if options.encoding.is_some() {
        return Err(CannotShow::Layout("an encoding of its own"));
    }
    let byte = |option: &Option<String>, default: u8| match option.as_deref().map(str::as_bytes) {
        None => Ok(default),
        Some(b"\n" | b"\r") => Err(CannotShow::Layout("a line break for a delimiter or quote")),
        Some([byte]) => Ok(*byte),
        Some(_) => Err(CannotShow::Layout("a delimiter or quote of several bytes")),
    };
    let null = |default: &str| options.null.as_deref().unwrap_or(default).as_bytes().to_vec();
    let header = options.header;
    if !options.csv {
        return Ok(CopyFormat::Text {
            delimiter: byte(&options.delimiter, b'\t')?,
            null: null("\\N"),
            header,
        });
    }
    let quote = byte(&options.quote, b'"')?;
    let (delimiter, escape) = (byte(&options.delimiter, b',')?, byte(&options.escape, quote)?);
    Ok(CopyFormat::Csv { delimiter, quote, escape, null: null(""), header })
}
