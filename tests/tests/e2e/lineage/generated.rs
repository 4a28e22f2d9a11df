//! Queries made at random over a few relations, whose names collide wherever the server may look one up in two places.

/// A masked column, `public.people.card`, and relations around it. All columns are texts, so that most queries run.
pub(crate) const RELATIONS: &str = "
    CREATE TABLE public.people (id text, name text, card text);
    INSERT INTO public.people VALUES ('1', 'ann', 'sentinel-one'), ('2', 'bob', 'sentinel-two');
    CREATE TABLE public.notes (id text, note text, x text);
    INSERT INTO public.notes VALUES ('1', 'read', 'y');
    CREATE TABLE store.notes (note text, y text);
    INSERT INTO store.notes VALUES ('kept', 'z');
    CREATE TABLE public.wide (a text, b text, c text, d text);
    INSERT INTO public.wide VALUES ('a', 'b', 'c', 'd');
    CREATE VIEW public.plain AS SELECT note AS x, id FROM public.notes;
    CREATE VIEW public.cards AS SELECT name AS x, card AS name FROM public.people;
    ALTER TABLE public.people OWNER TO app; ALTER TABLE public.notes OWNER TO app;
    ALTER TABLE public.wide OWNER TO app; ALTER TABLE store.notes OWNER TO app;
    ALTER VIEW public.plain OWNER TO app; ALTER VIEW public.cards OWNER TO app;
    GRANT USAGE, CREATE ON SCHEMA store TO app; GRANT CREATE ON SCHEMA public TO app;
";

/// What every value of the masked column holds, and no text that is sent.
pub(crate) const SENTINEL: &str = "sentinel";

/// What a session does before it asks: relations that the catalog doesn't show, or not as they are.
const SETUPS: &[&str] = &[
    "",
    "CREATE TEMP TABLE t (a text, b text)",
    "CREATE TEMP TABLE notes (x text)",
    "CREATE TEMP TABLE wide (a text, e text)",
    "BEGIN; CREATE TEMP TABLE t (a text, b text, c text); ROLLBACK; CREATE TEMP TABLE t (a text, b text)",
    "CREATE TEMP TABLE t (a text); DROP TABLE t; CREATE TEMP TABLE t (b text, x text, c text)",
    "CREATE TEMP TABLE t (a text, b text, c text); ALTER TABLE t DROP COLUMN b",
    "CREATE TEMP TABLE t (a text); ALTER TABLE t ADD COLUMN name text",
    "CREATE TEMP TABLE t (a text, b text); ALTER TABLE t RENAME COLUMN a TO name",
    "BEGIN; ALTER TABLE public.wide ADD COLUMN name text",
    "BEGIN; ALTER TABLE wide DROP COLUMN c",
    "EXPLAIN ANALYZE CREATE TEMP TABLE notes AS SELECT 'a'::text AS name",
    "EXPLAIN ANALYZE SELECT 'a'::text AS name INTO TEMP notes",
    "CREATE TEMP SEQUENCE notes",
    "CREATE TEMP TABLE t (id int GENERATED ALWAYS AS IDENTITY (SEQUENCE NAME pg_temp.wide))",
    "CREATE TEMP TABLE t (id int); ALTER TABLE t ALTER id SET NOT NULL, \
     ALTER id ADD GENERATED ALWAYS AS IDENTITY (SEQUENCE NAME pg_temp.notes)",
    "SET search_path = pg_temp, public; CREATE TABLE wide (id text); RESET search_path",
    "SET search_path = store, public; CREATE TABLE wide (id text)",
    "CREATE TEMP VIEW t AS SELECT note, 'a'::text FROM public.notes",
    "CREATE TEMP VIEW notes AS SELECT 1::int4::text, id FROM public.notes",
    "SET search_path = store, public",
    "SET search_path = store; CREATE TEMP TABLE t (a text)",
];

/// Names that expressions, functions and rows get by themselves, those of system columns, and those of the relations.
const NAMES: &[&str] = &[
    "id",
    "name",
    "card",
    "note",
    "x",
    "y",
    "a",
    "p",
    "ctid",
    "xmin",
    "tableoid",
    "oid",
    "text",
    "int4",
    "\"case\"",
    "\"coalesce\"",
    "\"?column?\"",
    "\"array\"",
    "\"row\"",
    "\"exists\"",
    "\"nullif\"",
    "\"current_user\"",
    "value",
    "key",
    "column1",
    "column2",
    "lexeme",
    "unnest",
    "ordinality",
    "notes",
    "last_value",
    "jsonb_array_elements_text",
];

const ALIASES: &[&str] =
    &["p", "q", "o", "name", "x", "ctid", "value", "text", "notes", "\"coalesce\"", "unnest"];

/// Tables, and functions with what they give: fewer of those than of others, as all of them give little to follow.
const TABLES: &[(&str, &[&str])] = &[
    ("people", &["id", "name", "card"]),
    ("public.people", &["id", "name", "card"]),
    ("notes", &["id", "note", "x"]),
    ("public.notes", &["id", "note", "x"]),
    ("store.notes", &["note", "y"]),
    ("wide", &["a", "b", "c", "d"]),
    ("plain", &["x", "id"]),
    ("cards", &["x", "name"]),
    ("t", &["a", "b", "c", "name"]),
    ("pg_catalog.pg_settings", &["name", "setting"]),
];

/// Those that sessions put something in front of, or make.
const SHADOWED: &[(&str, &[&str])] = &[
    ("t", &["a", "b", "c", "name"]),
    ("notes", &["id", "note", "x", "name"]),
    ("wide", &["a", "b", "c", "d", "name"]),
];

const FUNCTIONS: &[(&str, &[&str])] = &[
    ("jsonb_array_elements_text('[\"a\"]')", &["value", "jsonb_array_elements_text"]),
    ("json_each_text('{\"a\": \"b\"}')", &["key", "value"]),
    ("unnest(array['a'])", &["unnest"]),
    ("unnest('a:1'::tsvector)", &["lexeme", "unnest"]),
    ("unnest(array['a'], array['b'])", &["unnest"]),
    ("regexp_split_to_table('a', 'b')", &["regexp_split_to_table"]),
    ("string_to_table('a', ',')", &["string_to_table"]),
    ("pg_options_to_table(array['a=b'])", &["option_name", "option_value"]),
    ("lower('A')", &["lower"]),
    ("current_user", &["current_user"]),
    ("coalesce('a', 'b')", &["coalesce"]),
    ("coalesce(card, 'b')", &["coalesce"]),
    ("unnest(array[card])", &["unnest"]),
    ("ROWS FROM (coalesce(card, 'b'), lower(name))", &["coalesce", "lower"]),
    ("cast('(1,2,3)' as public.notes)", &["id", "note", "x"]),
    ("ROWS FROM (lower('A'), upper('b'))", &["lower", "upper"]),
    ("json_populate_record(null::public.notes, '{}')", &["id", "note", "x"]),
];

/// What one session sends: what it begins with, and queries.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) setup: &'static str,
    pub(crate) queries: Vec<String>,
}

/// A session for each way to begin, with so many queries; the same for the same seed.
pub(crate) fn scripts(seed: u64, queries: usize) -> Vec<Script> {
    let mut maker = Maker { state: seed, levels: Vec::new(), with: Vec::new() };
    let mut script = |setup| Script { setup, queries: (0..queries).map(|_| maker.statement()).collect() };
    SETUPS.iter().copied().map(&mut script).collect()
}

/// A row source as it is written, and what it may be asked for: its alias and columns.
struct Source {
    text: String,
    ranges: Vec<Range>,
}

#[derive(Clone, Default)]
struct Range {
    alias: String,
    names: Vec<String>,
}

struct Maker {
    state: u64,
    /// What is in sight, by query level, the innermost last.
    levels: Vec<Vec<Range>>,
    /// WITH queries in sight.
    with: Vec<Range>,
}

impl Maker {
    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.random() % bound.max(1) as u64).unwrap_or_default()
    }

    fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn one_of<T: Clone + Default>(&mut self, list: &[T]) -> T {
        list.get(self.below(list.len())).cloned().unwrap_or_default()
    }

    /// Anything; an outer column by a name that an inner query may have; every position of `*`, of what a change returns, too;
    /// anything through a view; and what changes rows.
    fn statement(&mut self) -> String {
        self.levels.clear();
        self.with.clear();
        match self.below(21) {
            20 => {
                let alias = self.one_of(ALIASES);
                let names = ["id", "name", "card"].map(str::to_owned).to_vec();
                self.levels.push(vec![Range { alias: alias.to_owned(), names }]);
                let names = ["f0", "f1", "f2"].join(", ");
                format!(
                    "SELECT {names} FROM public.people AS {alias}, LATERAL ({}) z ({names})",
                    self.written_out(3)
                )
            }
            0..=5 => self.query(3, None).0,
            6..=10 => self.correlated(),
            11..=16 => {
                let join = self.joined(2, &[]);
                let beside = if self.percent(60) { " RIGHT JOIN public.people w ON true" } else { "" };
                let names = self.positions();
                format!("SELECT {names} FROM (SELECT * FROM {}{beside}) z ({names})", join.text)
            }
            17 => {
                let (join, names) = (self.joined(1, &[]), self.positions());
                let change = "UPDATE wide SET a = 'a'";
                format!(
                    "WITH u AS ({change} FROM {} WHERE wide.a = 'a' RETURNING *) SELECT {names} FROM u z ({names})",
                    join.text
                )
            }
            18 if self.percent(50) => format!("COPY ({}) TO STDOUT", self.query(2, None).0),
            18 => self.copy(),
            _ => {
                let query = if self.percent(50) { self.query(2, None).0 } else { self.correlated() };
                let name = self.one_of(NAMES);
                let shown = if self.percent(50) { "*" } else { name };
                format!("DROP VIEW IF EXISTS g;\nCREATE TEMP VIEW g AS {query};\nSELECT {shown} FROM g")
            }
        }
    }

    fn correlated(&mut self) -> String {
        let (inner, outer) = self.inner_and_outer();
        format!("SELECT {inner} FROM {outer}")
    }

    /// An inner query for a name, and an outer one that has it.
    fn inner_and_outer(&mut self) -> (String, String) {
        let (name, alias) = (self.one_of(NAMES), self.one_of(ALIASES));
        self.levels.push(vec![Range { alias: alias.into(), names: vec![name.into()] }]);
        let inner = self.joined(2, &[]).text;
        (
            format!("(SELECT {name} FROM {inner} LIMIT 1)"),
            format!("(SELECT card AS {name} FROM people) {alias}"),
        )
    }

    /// What would keep a masked value in a column without a mask, if it ran.
    fn copy(&mut self) -> String {
        if self.percent(50) {
            let (inner, outer) = self.inner_and_outer();
            return format!("UPDATE wide SET b = {inner} FROM {outer} WHERE wide.a = 'a'");
        }
        if self.percent(30) {
            let source = self.joined(1, &[]);
            self.levels.push(source.ranges);
            let count = 1 + self.below(3);
            let values = self.written_out(count);
            let (table, columns) = self.one_of(&[
                ("wide", ""),
                ("wide", "(b, a, c)"),
                ("public.people", "(id, card, name)"),
                ("public.people", "(id, card)"),
            ]);
            let insert = format!("INSERT {columns} {values}");
            return format!(
                "MERGE INTO {table} z USING {} ON false WHEN NOT MATCHED THEN {insert}",
                source.text
            );
        }
        let (join, names) = (self.joined(2, &[]), self.positions());
        let table = self.one_of(&["wide (a, b, c)", "wide", "notes", "public.notes", "t"]);
        format!("INSERT INTO {table} SELECT f0, f1, f2 FROM (SELECT * FROM {}) z ({names})", join.text)
    }

    /// A row of values, of which some may be several columns to the server.
    fn written_out(&mut self, values: usize) -> String {
        let values: Vec<String> = (0..values)
            .map(|_| {
                let alias = self
                    .range()
                    .map_or_else(|| "(SELECT w FROM people w LIMIT 1)".to_owned(), |range| range.alias);
                match self.below(5) {
                    0 => format!("{alias}.*"),
                    1 => format!("({alias}).*"),
                    2 => format!("ROW({alias}.*)::text"),
                    3 => "'a'".to_owned(),
                    _ => self.column(),
                }
            })
            .collect();
        format!("VALUES ({})", values.join(", "))
    }

    fn positions(&mut self) -> String {
        (0..3 + self.below(6)).map(|index| format!("f{index}")).collect::<Vec<_>>().join(", ")
    }

    /// A query, and what its columns may be called.
    fn query(&mut self, depth: usize, outputs: Option<usize>) -> (String, Vec<String>) {
        let known = self.with.len();
        let mut with = String::new();
        if depth > 0 && self.percent(12) {
            self.levels.push(Vec::new());
            let (text, names) = self.query(depth - 1, None);
            self.levels.pop();
            let name = self.one_of(&["c", "notes", "people"]);
            with = format!("WITH {name} AS ({text}) ");
            self.with.push(Range { alias: name.into(), names });
        }
        self.levels.push(Vec::new());
        let sources = (0..1 + self.below(2)).fold(Vec::new(), |mut sources: Vec<Source>, _| {
            let beside: Vec<Range> = sources.iter().flat_map(|source| source.ranges.clone()).collect();
            sources.push(self.joined(depth.saturating_sub(1), &beside));
            sources
        });
        let ranges = sources.iter().flat_map(|source| source.ranges.clone()).collect();
        if let Some(level) = self.levels.last_mut() {
            *level = ranges;
        }
        let from = sources.into_iter().map(|source| source.text).collect::<Vec<_>>().join(", ");
        let (mut targets, mut names) = (Vec::new(), Vec::new());
        let count = outputs.unwrap_or_else(|| 1 + self.below(3));
        for _ in 0..count {
            let (text, name) = self.target(depth, outputs.is_some());
            targets.push(text);
            names.extend(name);
        }
        self.levels.pop();
        self.with.truncate(known);
        let mut text = format!("{with}SELECT {} FROM {from}", targets.join(", "));
        if depth > 0 && outputs.is_some() && self.percent(10) {
            text = format!("{text} UNION ALL {}", self.query(depth - 1, outputs).0);
        }
        (text, names)
    }

    /// An item of a FROM clause, perhaps a join.
    fn joined(&mut self, depth: usize, beside: &[Range]) -> Source {
        let left = self.source(depth, beside);
        if !self.percent(40) {
            return left;
        }
        let mut seen = beside.to_vec();
        seen.extend(left.ranges.iter().cloned());
        let right = self.source(depth, &seen);
        let name = self.column();
        let text = match self.below(7) {
            0 => format!("{} NATURAL JOIN {}", left.text, right.text),
            1 => format!("{} JOIN {} USING ({name})", left.text, right.text),
            2 => format!("{} FULL JOIN {} USING ({name}) AS u", left.text, right.text),
            3 => format!("{} CROSS JOIN {}", left.text, right.text),
            4 => format!("{} LEFT JOIN {} ON true", left.text, right.text),
            5 => format!("{} NATURAL LEFT JOIN {}", left.text, right.text),
            _ => format!("{} JOIN {} ON true", left.text, right.text),
        };
        let ranges: Vec<Range> = left.ranges.into_iter().chain(right.ranges).collect();
        if self.percent(15) {
            let names = ranges.iter().flat_map(|range| range.names.clone()).collect();
            let alias = self.alias(names);
            return Source { text: format!("({text}) {}", alias.1), ranges: vec![alias.0] };
        }
        Source { text, ranges }
    }

    fn source(&mut self, depth: usize, beside: &[Range]) -> Source {
        if depth > 0 && self.percent(45) {
            let lateral = self.percent(30);
            let seen = if lateral { beside.to_vec() } else { Vec::new() };
            self.levels.push(seen);
            let (text, names) = match self.percent(10) {
                true => ("VALUES ('a', 'b')".to_owned(), vec!["column1".to_owned(), "column2".to_owned()]),
                false if self.percent(10) => {
                    (self.written_out(2), (1..5).map(|n| format!("column{n}")).collect())
                }
                false => self.query(depth - 1, None),
            };
            self.levels.pop();
            let (range, alias) = self.alias(names);
            let lateral = if lateral { "LATERAL " } else { "" };
            return Source { text: format!("{lateral}({text}) {alias}"), ranges: vec![range] };
        }
        if !self.with.is_empty() && self.percent(40) {
            let range = self.one_of(&self.with.clone());
            return Source { text: range.alias.clone(), ranges: vec![range] };
        }
        let (text, names) = match self.below(20) {
            0..=3 => self.one_of(FUNCTIONS),
            4..=8 => self.one_of(SHADOWED),
            _ => self.one_of(TABLES),
        };
        let names: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
        let ordinality = if text.ends_with(')') && !text.starts_with('c') && self.percent(15) {
            " WITH ORDINALITY"
        } else {
            ""
        };
        if self.percent(50) {
            let (range, alias) = self.alias(names);
            return Source { text: format!("{text}{ordinality} {alias}"), ranges: vec![range] };
        }
        let alias = names.first().filter(|_| text.ends_with(')')).cloned();
        let alias = alias.unwrap_or_else(|| text.rsplit('.').next().unwrap_or(text).to_owned());
        Source { text: format!("{text}{ordinality}"), ranges: vec![Range { alias, names }] }
    }

    /// `AS alias`, perhaps with the names of some columns.
    fn alias(&mut self, mut names: Vec<String>) -> (Range, String) {
        let alias = self.one_of(ALIASES).to_owned();
        let mut text = format!("AS {alias}");
        if !names.is_empty() && self.percent(30) {
            let given: Vec<String> =
                (0..1 + self.below(names.len())).map(|_| self.one_of(NAMES).to_owned()).collect();
            text = format!("{text} ({})", given.join(", "));
            names.splice(..given.len(), given);
        }
        (Range { alias, names }, text)
    }

    /// The name of a column in sight, most often, or any.
    fn column(&mut self) -> String {
        let ranges: Vec<Range> = self.levels.iter().flatten().cloned().collect();
        let names: Vec<String> = ranges.into_iter().flat_map(|range| range.names).collect();
        match names.is_empty() || self.percent(20) {
            true => self.one_of(NAMES).to_owned(),
            false => self.one_of(&names),
        }
    }

    fn range(&mut self) -> Option<Range> {
        let ranges: Vec<Range> = self.levels.iter().flatten().cloned().collect();
        let index = self.below(ranges.len());
        ranges.get(index).cloned()
    }

    /// An output, and its name as far as it is easily told.
    fn target(&mut self, depth: usize, single: bool) -> (String, Vec<String>) {
        let Some(range) = self.range() else { return ("'a'".into(), Vec::new()) };
        if !single && self.percent(12) {
            let names: Vec<String> =
                self.levels.last().into_iter().flatten().flat_map(|range| range.names.clone()).collect();
            return ("*".into(), names);
        }
        if !single && self.percent(8) {
            let star =
                if self.percent(50) { format!("{}.*", range.alias) } else { format!("({}).*", range.alias) };
            return (star, range.names);
        }
        let (text, name) = self.expression(depth, &range);
        match self.percent(25) {
            true => {
                let given = self.one_of(NAMES);
                (format!("{text} AS {given}"), vec![given.into()])
            }
            false => (text, name.into_iter().collect()),
        }
    }

    fn expression(&mut self, depth: usize, range: &Range) -> (String, Option<String>) {
        let of_range = match range.names.is_empty() || self.percent(15) {
            true => self.one_of(NAMES).to_owned(),
            false => self.one_of(&range.names),
        };
        match self.below(20) {
            0..=6 => {
                let name = self.column();
                (name.clone(), Some(name))
            }
            7..=9 => (format!("{}.{of_range}", range.alias), Some(of_range)),
            10 => (range.alias.clone(), Some(range.alias.clone())),
            11 => (format!("({}).{of_range}", range.alias), Some(of_range)),
            12 => ("1::int4::text".into(), Some("text".into())),
            13 => {
                let name = self.column();
                (format!("CASE WHEN true THEN {name} ELSE 'b'::text END"), Some("\"case\"".into()))
            }
            14 => ("'a'".into(), Some("\"?column?\"".into())),
            15 => ("coalesce('a', 'b')".into(), Some("\"coalesce\"".into())),
            16 => {
                let name = self.column();
                (format!("(VALUES ({name}))"), Some("column1".into()))
            }
            _ if depth > 0 => {
                let (query, names) = self.query(depth - 1, Some(1));
                (format!("({query} LIMIT 1)"), names.into_iter().next())
            }
            _ => {
                let name = self.column();
                (name.clone(), Some(name))
            }
        }
    }
}
