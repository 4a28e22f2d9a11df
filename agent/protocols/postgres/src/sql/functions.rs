//! Which of PostgreSQL's own functions are harmless.
//!
//! A function of `pg_catalog` is harmless if it is an aggregate or window function, or if it isn't volatile and
//! isn't listed in [`TELLING`], or if it is listed in [`SAFE_VOLATILE`]. So what a later version adds is judged by what
//! PostgreSQL declares it to be. Every function of any other schema may run statements that the gate doesn't
//! see, and an allow must name it.

use super::catalog::Function;

/// Whether calling it reads no file, runs no text, disturbs no session and shows no column's values but its
/// arguments'.
pub(super) fn is_harmless(function: &Function) -> bool {
    if &*function.schema != "pg_catalog" {
        return false;
    }
    match function.kind {
        'a' | 'w' => !STATEMENT_RUNNING.contains(&&*function.name),
        _ if function.volatility == 'v' => SAFE_VOLATILE.binary_search(&&*function.name).is_ok(),
        _ => !is_telling(&function.name),
    }
}

/// Whether what it returns is made from its arguments alone, as far as its author declares.
pub(super) fn is_traced(function: &Function) -> bool {
    match &*function.schema {
        "pg_catalog" => is_harmless(function) || is_acting(&function.name),
        _ => function.volatility == 'i',
    }
}

/// It changes a sequence or takes a lock, and tells of nothing but that.
fn is_acting(name: &str) -> bool {
    matches!(name, "nextval" | "setval")
        || ["pg_advisory_", "pg_try_advisory_"].iter().any(|prefix| name.starts_with(prefix))
}

/// Whether it may make temporary relations: it runs statements, as far as is known.
pub(super) fn may_make_relations(function: &Function) -> bool {
    &*function.schema != "pg_catalog" && function.volatility == 'v' && function.scripted
}

/// Whether it may open cursors by any name, and close those that there are: it runs statements, whatever its author says of it.
pub(super) fn may_open_cursors(function: &Function) -> bool {
    &*function.schema != "pg_catalog" && function.scripted
}

fn is_telling(name: &str) -> bool {
    TELLING.contains(&name)
        || ["table_to_", "schema_to_", "database_to_", "query_to_", "cursor_to_", "lo_", "pg_read_", "pg_ls_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

const STATEMENT_RUNNING: &[&str] = &["ts_stat"];

/// Not volatile, and yet shows rows, statements of others, files or samples of column values.
const TELLING: &[&str] = &[
    "pg_config",
    "pg_get_backend_memory_contexts",
    "pg_hba_file_rules",
    "pg_ident_file_mappings",
    "pg_mcv_list_items",
    "pg_show_all_file_settings",
    "pg_stat_get_activity",
    "pg_stat_get_backend_activity",
    "pg_stats_ext_mcvlist_items",
    "ts_rewrite",
];

/// Volatile, and yet without effect beyond the session, or a statement of their own kind (`pg_notify`, `set_config`).
/// Sorted.
const SAFE_VOLATILE: &[&str] = &[
    "age",
    "amvalidate",
    "array_sample",
    "array_shuffle",
    "bernoulli",
    "clock_timestamp",
    "current_query",
    "currval",
    "gen_random_uuid",
    "has_sequence_privilege",
    "lastval",
    "pg_available_extension_versions",
    "pg_available_extensions",
    "pg_blocking_pids",
    "pg_collation_actual_version",
    "pg_column_compression",
    "pg_current_snapshot",
    "pg_current_wal_flush_lsn",
    "pg_current_wal_insert_lsn",
    "pg_current_wal_lsn",
    "pg_current_xact_id",
    "pg_current_xact_id_if_assigned",
    "pg_database_collation_actual_version",
    "pg_database_size",
    "pg_export_snapshot",
    "pg_extension_config_dump",
    "pg_extension_update_paths",
    "pg_get_wal_replay_pause_state",
    "pg_indexes_size",
    "pg_is_in_recovery",
    "pg_is_wal_replay_paused",
    "pg_jit_available",
    "pg_last_committed_xact",
    "pg_last_wal_receive_lsn",
    "pg_last_wal_replay_lsn",
    "pg_last_xact_replay_timestamp",
    "pg_lock_status",
    "pg_my_temp_schema",
    "pg_notification_queue_usage",
    "pg_notify",
    "pg_partition_ancestors",
    "pg_partition_tree",
    "pg_postmaster_start_time",
    "pg_prepared_xact",
    "pg_relation_filenode",
    "pg_relation_size",
    "pg_safe_snapshot_blocking_pids",
    "pg_sequence_last_value",
    "pg_show_all_settings",
    "pg_size_bytes",
    "pg_sleep",
    "pg_sleep_for",
    "pg_sleep_until",
    "pg_stat_clear_snapshot",
    "pg_table_size",
    "pg_tablespace_databases",
    "pg_tablespace_size",
    "pg_total_relation_size",
    "pg_xact_commit_timestamp",
    "pg_xact_status",
    "random",
    "random_normal",
    "set_config",
    "setseed",
    "system",
    "timeofday",
    "txid_current",
    "txid_current_if_assigned",
    "txid_current_snapshot",
    "txid_status",
    "uuidv4",
    "uuidv7",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn function(schema: &str, name: &str, volatility: char) -> Function {
        Function {
            schema: schema.into(),
            name: name.into(),
            kind: 'f',
            volatility,
            returns_set: false,
            outputs: None,
            scalar: true,
            scripted: false,
        }
    }

    #[test]
    fn the_lists_are_sorted() {
        assert!(SAFE_VOLATILE.is_sorted() && TELLING.is_sorted());
    }

    #[test]
    fn what_reads_files_or_runs_text_is_not_harmless() {
        for (name, volatility) in [
            ("pg_read_file", 'v'),
            ("pg_ls_dir", 'v'),
            ("lo_import", 'v'),
            ("lo_get", 'v'),
            ("query_to_xml", 'v'),
            ("database_to_xml", 's'),
            ("table_to_xml_and_xmlschema", 's'),
            ("cursor_to_xml", 'v'),
            ("ts_stat", 'v'),
            ("ts_rewrite", 'i'),
            ("pg_terminate_backend", 'v'),
            ("pg_logical_slot_get_changes", 'v'),
            ("pg_create_logical_replication_slot", 'v'),
            ("pg_stat_get_activity", 's'),
            ("pg_promote", 'v'),
            ("nextval", 'v'),
            ("setval", 'v'),
            ("pg_advisory_lock", 'v'),
            ("pg_try_advisory_xact_lock_shared", 'v'),
            ("pg_logical_emit_message", 'v'),
            ("pg_reload_conf", 'v'),
        ] {
            assert!(!is_harmless(&function("pg_catalog", name, volatility)), "{name}");
        }
    }

    #[test]
    fn everyday_functions_are_harmless() {
        for (name, volatility) in
            [("lower", 'i'), ("now", 's'), ("currval", 'v'), ("version", 's'), ("pg_sleep", 'v')]
        {
            assert!(is_harmless(&function("pg_catalog", name, volatility)), "{name}");
        }
    }

    #[test]
    fn a_function_of_another_schema_is_not_harmless_whatever_its_name() {
        assert!(!is_harmless(&function("public", "lower", 'i')));
        assert!(is_traced(&function("public", "mine", 'i')) && !is_traced(&function("public", "mine", 's')));
        assert!(!is_traced(&function("public", "setval", 'v')));
    }

    #[test]
    fn what_changes_a_sequence_must_be_named_and_tells_nothing() {
        for name in ["nextval", "setval", "pg_advisory_lock", "pg_try_advisory_xact_lock"] {
            let function = function("pg_catalog", name, 'v');
            assert!(!is_harmless(&function) && is_traced(&function), "{name}");
        }
        assert!(!is_traced(&function("pg_catalog", "pg_read_file", 'v')));
    }
}
