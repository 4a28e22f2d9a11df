//! The gate's questions about a database's catalog.

use std::sync::Arc;

/// To be run before each question, in its transaction: a pooler may give the next one another connection, and this one to
/// somebody else. With it, view definitions name every relation's schema. Whoever changes a view in an open transaction
/// locks its definition: others that ask for it must not wait for that, nor for each other behind it. To compile a question takes ten times as long as
/// to answer it.
pub(crate) const SETUP: &str = "\
SELECT pg_catalog.set_config('search_path', '', true) || pg_catalog.set_config('statement_timeout', '5s', true)
  || pg_catalog.set_config('lock_timeout', '500ms', true) || pg_catalog.set_config('jit', 'off', true)";

/// The columns that go with somebody's temporary relations and types, as `fleeting (relation, attnum)`, of relations that
/// `found` has by `oid`: they depend on what is in such a schema, which is dropped by CASCADE and says nothing of it.
macro_rules! fleeting {
    () => {
        "leaning AS (
  SELECT f.oid AS relation, d.objsubid AS attnum, d.refclassid, d.refobjid, d.refobjsubid FROM found f
  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = f.oid
  WHERE d.objsubid > 0
  UNION ALL SELECT f.oid, a.attnum, d.refclassid, d.refobjid, d.refobjsubid FROM found f
  JOIN pg_catalog.pg_attribute a ON a.attrelid = f.oid AND a.attgenerated <> ''
  JOIN pg_catalog.pg_attrdef e ON e.adrelid = f.oid AND e.adnum = a.attnum
  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.objid = e.oid
  UNION SELECT l.relation, l.attnum, d.refclassid, d.refobjid, d.refobjsubid FROM leaning l
  JOIN pg_catalog.pg_depend d ON d.classid = l.refclassid AND d.objid = l.refobjid AND d.objsubid IN (0, l.refobjsubid)
), fleeting AS (
  SELECT l.relation, l.attnum FROM leaning l JOIN pg_catalog.pg_namespace n ON n.oid = l.refobjid
  WHERE l.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND n.nspname LIKE 'pg\\_temp\\_%'
)"
    };
}

/// One row and one column (JSON as text) per relation; `$1` is a `text[]` of names.
///
/// The rule that is a view's query is written when the view is created or replaced, and at no other time; REFRESH always
/// writes the entry of `pg_class` anew. Which transaction did either tells which came first, as long as there were fewer
/// than two thousand million between them.
pub(crate) const RELATIONS: &str = concat!(
    "WITH RECURSIVE found AS (
  SELECT c.oid, c.relname, c.relkind, c.xmin AS writer, n.nspname FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relname = ANY ($1::pg_catalog.text[]) AND c.relkind IN ('r', 'v', 'm', 'f', 'p', 'S', 't')
    AND n.nspname NOT LIKE 'pg\\_temp\\_%'
), above AS (
  SELECT f.oid AS start, i.inhparent AS oid FROM found f JOIN pg_catalog.pg_inherits i ON i.inhrelid = f.oid
  UNION SELECT a.start, i.inhparent FROM above a JOIN pg_catalog.pg_inherits i ON i.inhrelid = a.oid
), below AS (
  SELECT f.oid AS start, i.inhrelid AS oid FROM found f JOIN pg_catalog.pg_inherits i ON i.inhparent = f.oid
  UNION SELECT b.start, i.inhrelid FROM below b JOIN pg_catalog.pg_inherits i ON i.inhparent = b.oid
), ",
    fleeting!(),
    "
SELECT pg_catalog.json_build_object(
  'schema', f.nspname, 'name', f.relname, 'oid', f.oid::pg_catalog.int8,
  'definition', CASE WHEN f.relkind IN ('v', 'm') THEN pg_catalog.pg_get_viewdef(f.oid) END,
  'materialized', f.relkind = 'm',
  'age', CASE f.relkind WHEN 'm' THEN pg_catalog.age(f.writer)
    ELSE (SELECT pg_catalog.age(w.xmin) FROM pg_catalog.pg_rewrite w
      WHERE f.relkind = 'v' AND w.ev_class = f.oid AND w.rulename = '_RETURN') END,
  'partitioned_by', (SELECT pg_catalog.json_agg(a.attname) FROM pg_catalog.pg_partitioned_table p
    JOIN pg_catalog.pg_attribute a ON a.attrelid = p.partrelid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE p.partrelid = f.oid AND (a.attnum = ANY (p.partattrs) OR 0 = ANY (p.partattrs))),
  'columns', (SELECT pg_catalog.json_agg(pg_catalog.json_build_object('name', a.attname, 'number', a.attnum,
      'type', a.atttypid::pg_catalog.int8, 'generated', a.attgenerated <> '', 'fleeting',
      EXISTS (SELECT 1 FROM fleeting e WHERE e.relation = f.oid AND e.attnum = a.attnum), 'made_from',
      (SELECT pg_catalog.json_agg(DISTINCT s.attname) FROM pg_catalog.pg_attrdef d
       JOIN pg_catalog.pg_depend p ON p.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND p.objid = d.oid
         OR p.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND p.objid = d.adrelid AND p.objsubid = d.adnum
       JOIN pg_catalog.pg_attribute s ON s.attrelid = p.refobjid AND s.attnum = p.refobjsubid
       WHERE a.attgenerated <> '' AND d.adrelid = a.attrelid AND d.adnum = a.attnum
         AND p.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND p.refobjid = a.attrelid
         AND s.attnum <> a.attnum)) ORDER BY a.attnum)
    FROM pg_catalog.pg_attribute a WHERE a.attrelid = f.oid AND a.attnum > 0 AND NOT a.attisdropped),
  'relatives', (SELECT pg_catalog.json_agg(DISTINCT n.nspname || '.' || c.relname)
    FROM (SELECT oid FROM above WHERE start = f.oid UNION SELECT oid FROM below WHERE start = f.oid) r
    JOIN pg_catalog.pg_class c ON c.oid = r.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace)
)::pg_catalog.text FROM found f ORDER BY f.nspname"
);

/// One row and one column (JSON as text) per function, and per operator of another schema than `pg_catalog` that no
/// extension brought; `$1` is a `text[]` of names.
pub(crate) const FUNCTIONS: &str = concat!(
    "WITH RECURSIVE found AS (
  SELECT t.typrelid AS oid FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_type t ON t.oid = p.prorettype
  WHERE p.proname = ANY ($1::pg_catalog.text[]) AND t.typtype = 'c'
), ",
    fleeting!(),
    "
SELECT pg_catalog.json_build_object(
  'schema', n.nspname, 'name', p.proname, 'kind', p.prokind, 'volatility', p.provolatile,
  'returns_set', p.proretset,
  'scripted', (SELECT l.lanname NOT IN ('internal', 'c') FROM pg_catalog.pg_language l WHERE l.oid = p.prolang),
  'outputs', CASE
    WHEN t.typtype = 'c' AND t.typrelid IN (SELECT e.relation FROM fleeting e) THEN NULL
    WHEN t.typtype = 'c' THEN
      (SELECT pg_catalog.json_agg(a.attname ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
       WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped)
    WHEN p.proargmodes && '{o,b,t}'::pg_catalog.\"char\"[]
      AND (t.typtype NOT IN ('d', 'p') OR p.prorettype = 'pg_catalog.record'::pg_catalog.regtype) THEN
      (SELECT pg_catalog.json_agg(COALESCE(p.proargnames[i], '') ORDER BY i)
       FROM pg_catalog.generate_subscripts(p.proargmodes, 1) i WHERE p.proargmodes[i] IN ('o', 'b', 't'))
  END,
  'scalar', t.typtype NOT IN ('c', 'd', 'p')
)::pg_catalog.text
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
JOIN pg_catalog.pg_type t ON t.oid = p.prorettype
WHERE p.proname = ANY ($1::pg_catalog.text[])
UNION ALL
SELECT pg_catalog.json_build_object(
  'schema', n.nspname, 'name', o.oprname, 'kind', 'o', 'volatility', p.provolatile,
  'returns_set', p.proretset, 'outputs', NULL, 'scalar', true,
  'scripted', (SELECT l.lanname NOT IN ('internal', 'c') FROM pg_catalog.pg_language l WHERE l.oid = p.prolang)
)::pg_catalog.text
FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
JOIN pg_catalog.pg_proc p ON p.oid = o.oprcode
WHERE o.oprname = ANY ($1::pg_catalog.text[]) AND n.nspname <> 'pg_catalog' AND NOT EXISTS (
  SELECT 1 FROM pg_catalog.pg_depend d WHERE d.objid = o.oid AND d.deptype = 'e'
    AND d.classid = 'pg_catalog.pg_operator'::pg_catalog.regclass)
ORDER BY 1"
);

/// One row and one column (JSON as text) per type name that stands for a type whose values take functions of another
/// schema than `pg_catalog`, that no extension brought, to read, write, check or be cast to; `$1` is a `text[]` of names. What
/// a type is made of counts too: a domain's type, an array's elements, a composite's columns, a range's bounds.
pub(crate) const TYPES: &str = "\
WITH RECURSIVE part AS (
  SELECT t.typname AS name, t.oid FROM pg_catalog.pg_type t WHERE t.typname = ANY ($1::pg_catalog.text[])
  UNION
  SELECT p.name, more.oid FROM part p JOIN pg_catalog.pg_type t ON t.oid = p.oid CROSS JOIN LATERAL (
    SELECT t.typbasetype AS oid UNION ALL SELECT t.typelem
    UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a
      WHERE t.typrelid <> 0 AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid
  ) more WHERE more.oid <> 0
), run AS (
  SELECT p.name, c.castfunc AS oid FROM part p
  JOIN pg_catalog.pg_cast c ON c.casttarget = p.oid
  UNION
  SELECT p.name, own.oid FROM part p JOIN pg_catalog.pg_type t ON t.oid = p.oid
  CROSS JOIN LATERAL pg_catalog.unnest(ARRAY[t.typinput::pg_catalog.oid, t.typoutput::pg_catalog.oid,
    t.typreceive::pg_catalog.oid, t.typsend::pg_catalog.oid, t.typmodin::pg_catalog.oid]) own (oid)
  UNION
  SELECT p.name, r.rngcanonical::pg_catalog.oid FROM part p JOIN pg_catalog.pg_range r ON r.rngtypid = p.oid
  UNION
  SELECT p.name, d.refobjid FROM part p JOIN pg_catalog.pg_constraint k ON k.contypid = p.oid
  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND d.objid = k.oid
    AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
)
SELECT pg_catalog.json_build_object('name', r.name, 'functions',
  pg_catalog.json_agg(DISTINCT n.nspname || '.' || f.proname))::pg_catalog.text
FROM run r JOIN pg_catalog.pg_proc f ON f.oid = r.oid JOIN pg_catalog.pg_namespace n ON n.oid = f.pronamespace
WHERE n.nspname <> 'pg_catalog' AND NOT EXISTS (
  SELECT 1 FROM pg_catalog.pg_depend d WHERE d.objid = f.oid AND d.deptype = 'e'
    AND d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass)
GROUP BY r.name";

/// One row and one column (JSON as text) for each definition that a statement runs by, which is another text once it has
/// changed; in no order, and some more than once. `$1` and `$2` are `text[]` of relations, and of functions and operators, as
/// `schema.name`; `$3` is a `text[]` of words: `defines`, that event triggers run, and `anything`, that anything may.
///
/// Relations bring their rules, triggers, policies, defaults, constraints, partitions and heirs, and the tables that foreign
/// keys change with them; all of these the functions that they call. What a function in a language that runs statements calls is in
/// its text alone: with one that no extension brought, all functions, rules, triggers and policies count. What writes an entry
/// of the catalog anew changes its `xmin`; of relations, whose entries are written for other reasons too, what matters is told. A row `changing` says that somebody's open
/// transaction has written one of them anew.
pub(crate) const MARKS: &str = "\
WITH RECURSIVE part (class, object) AS (
  SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid, c.oid FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname || '.' || c.relname = ANY ($1::pg_catalog.text[])
  UNION SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, f.oid FROM pg_catalog.pg_proc f
  JOIN pg_catalog.pg_namespace n ON n.oid = f.pronamespace
  WHERE n.nspname || '.' || f.proname = ANY ($2::pg_catalog.text[])
  UNION SELECT 'pg_catalog.pg_operator'::pg_catalog.regclass, o.oid FROM pg_catalog.pg_operator o
  JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
  WHERE n.nspname || '.' || o.oprname = ANY ($2::pg_catalog.text[])
  UNION SELECT 'pg_catalog.pg_event_trigger'::pg_catalog.regclass, e.oid FROM pg_catalog.pg_event_trigger e
  WHERE 'defines' = ANY ($3::pg_catalog.text[])
  UNION SELECT more.class, more.object FROM part p CROSS JOIN LATERAL (
    SELECT d.refclassid, d.refobjid FROM pg_catalog.pg_depend d WHERE d.classid = p.class AND d.objid = p.object
      AND (d.refclassid IN ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass,
          'pg_catalog.pg_type'::pg_catalog.regclass)
        OR d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND p.class IN (
          'pg_catalog.pg_rewrite'::pg_catalog.regclass, 'pg_catalog.pg_policy'::pg_catalog.regclass,
          'pg_catalog.pg_proc'::pg_catalog.regclass))
    UNION ALL SELECT of_relation.class, of_relation.object FROM (
      SELECT 'pg_catalog.pg_rewrite'::pg_catalog.regclass AS class, w.oid AS object FROM pg_catalog.pg_rewrite w
      WHERE w.ev_class = p.object
      UNION ALL SELECT 'pg_catalog.pg_trigger'::pg_catalog.regclass, t.oid FROM pg_catalog.pg_trigger t
      WHERE t.tgrelid = p.object
      UNION ALL SELECT 'pg_catalog.pg_policy'::pg_catalog.regclass, o.oid FROM pg_catalog.pg_policy o
      WHERE o.polrelid = p.object
      UNION ALL SELECT 'pg_catalog.pg_attrdef'::pg_catalog.regclass, a.oid FROM pg_catalog.pg_attrdef a
      WHERE a.adrelid = p.object
      UNION ALL SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass, k.oid FROM pg_catalog.pg_constraint k
      WHERE k.conrelid = p.object
      UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, i.indexrelid FROM pg_catalog.pg_index i
      WHERE i.indrelid = p.object
      UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, h.inhrelid FROM pg_catalog.pg_inherits h
      WHERE h.inhparent = p.object
      UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, k.conrelid FROM pg_catalog.pg_depend d
      JOIN pg_catalog.pg_constraint k ON k.oid = d.objid
      WHERE d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND d.refobjid = p.object
        AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND k.contype = 'f' AND k.confrelid = p.object
        AND (k.confdeltype IN ('c', 'n', 'd') OR k.confupdtype IN ('c', 'n', 'd'))
    ) of_relation WHERE p.class = 'pg_catalog.pg_class'::pg_catalog.regclass
    UNION ALL SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, t.tgfoid FROM pg_catalog.pg_trigger t
    WHERE p.class = 'pg_catalog.pg_trigger'::pg_catalog.regclass AND t.oid = p.object AND NOT t.tgisinternal
    UNION ALL SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass, k.oid FROM pg_catalog.pg_constraint k
    WHERE p.class = 'pg_catalog.pg_type'::pg_catalog.regclass AND k.contypid = p.object
  ) more (class, object)
), own AS (
  SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname NOT IN ('pg_catalog', 'information_schema')
    AND n.nspname NOT LIKE 'pg\\_temp\\_%'
), scripted AS (
  SELECT f.oid, f.xmin, f.xmax FROM pg_catalog.pg_proc f JOIN own ON own.oid = f.pronamespace
  JOIN pg_catalog.pg_language l ON l.oid = f.prolang AND l.lanname NOT IN ('internal', 'c')
  WHERE NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend d WHERE d.objid = f.oid AND d.deptype = 'e'
    AND d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass)
), wide AS (
  SELECT 1 WHERE 'anything' = ANY ($3::pg_catalog.text[]) OR EXISTS (
    SELECT 1 FROM part p JOIN scripted s ON s.oid = p.object WHERE p.class = 'pg_catalog.pg_proc'::pg_catalog.regclass)
), one (class, oid, xmin, xmax) AS (
  SELECT p.class, w.oid, w.xmin, w.xmax FROM part p JOIN pg_catalog.pg_rewrite w ON w.oid = p.object
  WHERE p.class = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
  UNION ALL SELECT p.class, t.oid, t.xmin, t.xmax FROM part p JOIN pg_catalog.pg_trigger t ON t.oid = p.object
  WHERE p.class = 'pg_catalog.pg_trigger'::pg_catalog.regclass
  UNION ALL SELECT p.class, o.oid, o.xmin, o.xmax FROM part p JOIN pg_catalog.pg_policy o ON o.oid = p.object
  WHERE p.class = 'pg_catalog.pg_policy'::pg_catalog.regclass
  UNION ALL SELECT p.class, a.oid, a.xmin, a.xmax FROM part p JOIN pg_catalog.pg_attrdef a ON a.oid = p.object
  WHERE p.class = 'pg_catalog.pg_attrdef'::pg_catalog.regclass
  UNION ALL SELECT p.class, k.oid, k.xmin, k.xmax FROM part p JOIN pg_catalog.pg_constraint k ON k.oid = p.object
  WHERE p.class = 'pg_catalog.pg_constraint'::pg_catalog.regclass
  UNION ALL SELECT p.class, o.oid, o.xmin, o.xmax FROM part p JOIN pg_catalog.pg_operator o ON o.oid = p.object
  WHERE p.class = 'pg_catalog.pg_operator'::pg_catalog.regclass
  UNION ALL SELECT p.class, e.oid, e.xmin, e.xmax FROM part p JOIN pg_catalog.pg_event_trigger e ON e.oid = p.object
  WHERE p.class = 'pg_catalog.pg_event_trigger'::pg_catalog.regclass
  UNION ALL SELECT p.class, f.oid, f.xmin, f.xmax FROM part p JOIN pg_catalog.pg_proc f ON f.oid = p.object
  WHERE p.class = 'pg_catalog.pg_proc'::pg_catalog.regclass
  UNION ALL SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, s.oid, s.xmin, s.xmax FROM wide CROSS JOIN scripted s
  UNION ALL SELECT 'pg_catalog.pg_rewrite'::pg_catalog.regclass, w.oid, w.xmin, w.xmax FROM wide
  CROSS JOIN pg_catalog.pg_rewrite w JOIN pg_catalog.pg_class c ON c.oid = w.ev_class JOIN own ON own.oid = c.relnamespace
  UNION ALL SELECT 'pg_catalog.pg_trigger'::pg_catalog.regclass, t.oid, t.xmin, t.xmax FROM wide
  CROSS JOIN pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid JOIN own ON own.oid = c.relnamespace
  WHERE NOT t.tgisinternal
  UNION ALL SELECT 'pg_catalog.pg_policy'::pg_catalog.regclass, o.oid, o.xmin, o.xmax FROM wide CROSS JOIN pg_catalog.pg_policy o
)
SELECT pg_catalog.json_build_array('relation', c.oid::pg_catalog.int8, n.nspname, c.relname, c.relkind,
  c.relowner::pg_catalog.int8, c.relrowsecurity, c.relforcerowsecurity, CASE WHEN c.relkind = 'v' THEN c.reloptions END,
  (SELECT pg_catalog.json_agg(pg_catalog.json_build_array(a.attnum, a.attname, a.atttypid::pg_catalog.int8)
     ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
   WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped))::pg_catalog.text
FROM part p JOIN pg_catalog.pg_class c ON c.oid = p.object JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE p.class = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.relkind NOT IN ('i', 'I')
UNION ALL
SELECT pg_catalog.json_build_array(one.class::pg_catalog.int8, one.oid::pg_catalog.int8, one.xmin::pg_catalog.text)::pg_catalog.text
FROM one
UNION ALL
SELECT 'changing' WHERE EXISTS (SELECT 1 FROM one JOIN pg_catalog.pg_locks l ON l.transactionid = one.xmax
  WHERE l.locktype = 'transactionid' AND l.granted AND l.mode = 'ExclusiveLock')";

/// Names as a `text[]` in PostgreSQL's text format, for `$1`.
pub(crate) fn names_parameter<'a>(names: impl IntoIterator<Item = &'a Arc<str>>) -> String {
    let quoted = |name: &Arc<str>| format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""));
    format!("{{{}}}", names.into_iter().map(quoted).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_as_array_elements() {
        assert_eq!(
            names_parameter(["a\"b", "c\\d", "e,f"].map(Arc::from).iter()),
            r#"{"a\"b","c\\d","e,f"}"#
        );
    }
}
