//! What is asked of a store, the same of both. Placeholders stand in the order of their numbers: SQLite counts them by
//! first appearance.

/// Questions that wait on a host, and those of one account among them.
pub(super) const COUNT: &str = "select count(*), coalesce(sum(case when principal = $1 then 1 else 0 end), 0) \
    from tidegate_questions where host = $2 and waiting = 1 and alive > $3";
/// What was asked later than may be was asked before the clock was set back.
pub(super) const RECENT: &str =
    "select count(*) from tidegate_questions where principal = $1 and asked > $2 and asked <= $3";
pub(super) const INSERT: &str = "insert into tidegate_questions \
    (id, version, host, principal, waiting, owed, answered, asked, alive, brief, body) \
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) on conflict (id) do nothing";
pub(super) const INSERT_KEY: &str =
    "insert into tidegate_question_keys (key, inquiry) values ($1, $2) on conflict do nothing";
pub(super) const LOAD: &str = "select id, version, body from tidegate_questions where id = $1";
pub(super) const BRIEF: &str = "select id, version, brief from tidegate_questions where id = $1";
pub(super) const REPLACE: &str = "update tidegate_questions set version = version + 1, waiting = $1, owed = $2, \
    answered = $3, alive = $4, brief = $5, body = $6 where id = $7 and version = $8";
pub(super) const FIND: &str = "select id from tidegate_questions where id in \
    (select inquiry from tidegate_question_keys where key = $1) and waiting = $2 and alive > $3 order by asked";
/// Ranked by ids alone: the rest is read of what is listed.
pub(super) const LIST: &str = "select id, version, brief from tidegate_questions where id in (\
    select id from tidegate_questions where alive > $1 or owed = 1 \
    order by waiting desc, row_number() over (partition by principal order by asked desc, id), asked desc, id \
    limit $2)";

/// What people answered is kept longer than what nobody did: of who asks and one who answers together 10,000. So many at a time that
/// nobody waits for long.
pub(super) const FORGET: &str = "delete from tidegate_questions where id in (select id from (\
    select id, asked, answered, \
    row_number() over (partition by principal, answered order by asked desc, id) as place \
    from tidegate_questions where host = $1 and alive <= $2 and owed = 0) as ranked \
    where asked < $3 or (answered = 0 and place > $4) or place > 10000 limit 1000) returning id";
/// Of hosts that are gone: each forgets its own before.
pub(super) const FORGET_STRAYS: &str = "delete from tidegate_questions where id in (\
    select id from tidegate_questions where alive <= $1 and owed = 0 and asked < $2 limit 1000) returning id";
pub(super) const FORGET_KEYS: &str = "delete from tidegate_question_keys where inquiry = $1";
pub(super) const FORGET_LETTERS: &str = "delete from tidegate_letters where written < $1";

/// Most letters of a kind that wait for one receiver are 10,000 (alerts, answers, the rest), and about one account 1,000, 512 of the
/// rest: who asks must fill neither the disk while it is away, nor the room of the others, nor that of the answers; nor may who
/// asks and one who answers together.
pub(super) const INSERT_LETTER: &str = "insert into tidegate_letters \
    (id, host, hook, question, principal, urgent, answered, event, body, written, due, attempts) \
    select cast($1 as text), cast($2 as text), cast($3 as text), cast($4 as text), cast($5 as text), \
    cast($6 as bigint), cast($7 as bigint), cast($8 as text), cast($9 as text), cast($10 as bigint), \
    cast($11 as bigint), cast($12 as bigint) \
    where (select count(*) from tidegate_letters \
    where host = $2 and hook = $3 and urgent = $6 and answered = $7) < 10000 \
    and (select count(*) from tidegate_letters \
    where host = $2 and hook = $3 and urgent = $6 and answered = $7 and principal = $5) \
    < case when $6 = 1 or $7 = 1 then 1000 else 512 end";
/// Takes back what has not been told yet; whom, by name, it would have been.
pub(super) const UNSAY: &str = "delete from tidegate_letters \
    where host = $1 and question = $2 and event = 'asked' and attempts = 0 returning hook";
/// What was never tried is due, and what is due later than any letter is put off: it was by a clock that was ahead.
pub(super) const LETTERS: &str = "select id, host, hook, question, principal, urgent, answered, event, body, written, \
    due, attempts from tidegate_letters where host = $1 and hook = $2 \
    order by case when due <= $3 or due > $4 or attempts = 0 then 0 else due end, urgent desc, \
    row_number() over (partition by principal order by due, written, id), due, written, id limit $5";
pub(super) const ATTEMPT: &str = "update tidegate_letters set attempts = attempts + 1 where id = $1";
pub(super) const POSTPONE: &str = "update tidegate_letters set due = $1 where id = $2";
pub(super) const DELIVERED: &str = "delete from tidegate_letters where id = $1";
