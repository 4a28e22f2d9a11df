//! What is created, altered and dropped, as items name it.

use pg_query::{
    NodeEnum,
    protobuf::{DefineStmt, Node, ObjectType, RangeVar},
};

use super::relation::range_var;

/// A statement that is told by its kind, its object and the tables it names.
pub(super) struct Definition<'n> {
    pub(super) kind: &'static str,
    pub(super) object: Option<&'static str>,
    pub(super) tables: Vec<&'n RangeVar>,
    pub(super) expressions: Vec<&'n Node>,
}

impl<'n> Definition<'n> {
    fn new(kind: &'static str, object: &'static str) -> Self {
        Self { kind, object: Some(object), tables: Vec::new(), expressions: Vec::new() }
    }

    fn on(kind: &'static str, object: Option<&'static str>, table: Option<&'n RangeVar>) -> Self {
        Self { kind, object, tables: table.into_iter().collect(), expressions: Vec::new() }
    }
}

/// Every other defining statement by its kind. What lets code or rules be stored that run unseen is
/// `create-function`; what reaches other servers is `create-foreign`.
pub(super) fn classify(node: &NodeEnum) -> Option<Definition<'_>> {
    hiding(node).or_else(|| altering(node)).or_else(|| creating(node)).or_else(|| administering(node))
}

fn hiding(node: &NodeEnum) -> Option<Definition<'_>> {
    Some(match node {
        NodeEnum::CreateFunctionStmt(_) => Definition::new("create-function", "function"),
        NodeEnum::CreateTrigStmt(trigger) => {
            Definition::on("create-function", Some("trigger"), trigger.relation.as_ref())
        }
        NodeEnum::RuleStmt(rule) => Definition::on("create-function", Some("rule"), rule.relation.as_ref()),
        NodeEnum::CreateEventTrigStmt(_) => Definition::new("create-function", "event-trigger"),
        NodeEnum::CreatePlangStmt(_) => Definition::new("create-function", "language"),
        NodeEnum::CreateCastStmt(_) => Definition::new("create-function", "cast"),
        NodeEnum::CreateTransformStmt(_) => Definition::new("create-function", "transform"),
        NodeEnum::CreateConversionStmt(_) => Definition::new("create-function", "conversion"),
        NodeEnum::CreateOpClassStmt(_) => Definition::new("create-function", "operator-class"),
        NodeEnum::CreateOpFamilyStmt(_) | NodeEnum::AlterOpFamilyStmt(_) => {
            Definition::new("create-function", "operator-family")
        }
        NodeEnum::CreateAmStmt(_) => Definition::new("create-function", "access-method"),
        NodeEnum::DefineStmt(define) => defined(define),
        NodeEnum::AlterTypeStmt(_) => Definition::new("create-function", "type"),
        NodeEnum::AlterOperatorStmt(_) => Definition::new("create-function", "operator"),
        NodeEnum::AlterFunctionStmt(_) => Definition::new("create-function", "function"),
        NodeEnum::CreateExtensionStmt(_)
        | NodeEnum::AlterExtensionStmt(_)
        | NodeEnum::AlterExtensionContentsStmt(_) => Definition::new("create-extension", "extension"),
        NodeEnum::CreateFdwStmt(_) | NodeEnum::AlterFdwStmt(_) => {
            Definition::new("create-foreign", "foreign-data-wrapper")
        }
        NodeEnum::CreateForeignServerStmt(_) | NodeEnum::AlterForeignServerStmt(_) => {
            Definition::new("create-foreign", "server")
        }
        NodeEnum::CreateForeignTableStmt(_) | NodeEnum::ImportForeignSchemaStmt(_) => {
            Definition::new("create-foreign", "foreign-table")
        }
        NodeEnum::CreateUserMappingStmt(_) | NodeEnum::AlterUserMappingStmt(_) => {
            Definition::new("create-foreign", "user-mapping")
        }
        NodeEnum::CreateSubscriptionStmt(_) | NodeEnum::AlterSubscriptionStmt(_) => {
            Definition::new("create-foreign", "subscription")
        }
        NodeEnum::AlterSystemStmt(_) => Definition::new("alter-system", "configuration"),
        _ => return None,
    })
}

fn defined(define: &DefineStmt) -> Definition<'_> {
    match ObjectType::try_from(define.kind) {
        Ok(ObjectType::ObjectAggregate) => Definition::new("create-function", "aggregate"),
        Ok(ObjectType::ObjectOperator) => Definition::new("create-function", "operator"),
        Ok(ObjectType::ObjectType) => Definition::new("create-function", "type"),
        Ok(ObjectType::ObjectCollation) => Definition::new("create", "collation"),
        _ => Definition::new("create-function", "text-search"),
    }
}

fn altering(node: &NodeEnum) -> Option<Definition<'_>> {
    Some(match node {
        NodeEnum::AlterOwnerStmt(alter) => {
            Definition::on("alter", object_word(alter.object_type), alter.relation.as_ref())
        }
        NodeEnum::AlterObjectDependsStmt(alter) => {
            Definition::on("alter", object_word(alter.object_type), alter.relation.as_ref())
        }
        NodeEnum::AlterSeqStmt(alter) => Definition::on("alter", Some("sequence"), alter.sequence.as_ref()),
        NodeEnum::AlterDomainStmt(alter) => {
            let mut definition = Definition::new("alter", "domain");
            match alter.def.as_deref() {
                Some(Node { node: Some(NodeEnum::Constraint(constraint)) }) => {
                    definition.expressions.extend(constraint.raw_expr.as_deref());
                }
                default => definition.expressions.extend(default),
            }
            definition
        }
        NodeEnum::AlterRoleStmt(_) => Definition::new("role", "role"),
        NodeEnum::AlterDatabaseStmt(_) | NodeEnum::AlterDatabaseRefreshCollStmt(_) => {
            Definition::new("alter", "database")
        }
        NodeEnum::AlterCollationStmt(_) => Definition::new("alter", "collation"),
        NodeEnum::AlterEnumStmt(_) => Definition::new("alter", "type"),
        NodeEnum::AlterEventTrigStmt(_) => Definition::new("alter", "event-trigger"),
        NodeEnum::AlterTableSpaceOptionsStmt(_) | NodeEnum::AlterTableMoveAllStmt(_) => {
            Definition::new("alter", "tablespace")
        }
        NodeEnum::AlterStatsStmt(_) => Definition::new("alter", "statistics"),
        NodeEnum::AlterTsdictionaryStmt(_) | NodeEnum::AlterTsconfigurationStmt(_) => {
            Definition::new("alter", "text-search")
        }
        NodeEnum::AlterPublicationStmt(_) => Definition::new("alter", "publication"),
        NodeEnum::ReassignOwnedStmt(_) => Definition::new("alter", "owned"),
        NodeEnum::RefreshMatViewStmt(refresh) => {
            Definition::on("alter", Some("materialized-view"), refresh.relation.as_ref())
        }
        _ => return None,
    })
}

fn creating(node: &NodeEnum) -> Option<Definition<'_>> {
    Some(match node {
        NodeEnum::CreateSeqStmt(_) => Definition::new("create", "sequence"),
        NodeEnum::CreateRoleStmt(_) => Definition::new("role", "role"),
        NodeEnum::CreatedbStmt(_) => Definition::new("create", "database"),
        NodeEnum::CreateTableSpaceStmt(_) => Definition::new("create", "tablespace"),
        NodeEnum::CreateEnumStmt(_) | NodeEnum::CompositeTypeStmt(_) => Definition::new("create", "type"),
        NodeEnum::CreateRangeStmt(_) => Definition::new("create-function", "type"),
        NodeEnum::CreateDomainStmt(_) => Definition::new("create-function", "domain"),
        NodeEnum::CreatePublicationStmt(_) => Definition::new("create", "publication"),
        NodeEnum::CreateStatsStmt(create) => {
            let tables = create.relations.iter().filter_map(range_var).collect();
            Definition { kind: "create", object: Some("statistics"), tables, expressions: Vec::new() }
        }
        NodeEnum::DropRoleStmt(_) => Definition::new("role", "role"),
        NodeEnum::DropdbStmt(_) => Definition::new("drop", "database"),
        NodeEnum::DropTableSpaceStmt(_) => Definition::new("drop", "tablespace"),
        NodeEnum::DropOwnedStmt(_) => Definition::new("drop", "owned"),
        NodeEnum::DropUserMappingStmt(_) => Definition::new("drop", "user-mapping"),
        NodeEnum::DropSubscriptionStmt(_) => Definition::new("drop", "subscription"),
        _ => return None,
    })
}

fn administering(node: &NodeEnum) -> Option<Definition<'_>> {
    Some(match node {
        NodeEnum::GrantStmt(grant) => {
            let tables: Vec<&RangeVar> = grant.objects.iter().filter_map(range_var).collect();
            Definition { kind: "grant", object: object_word(grant.objtype), tables, expressions: Vec::new() }
        }
        NodeEnum::GrantRoleStmt(_) => Definition::new("grant", "role"),
        NodeEnum::AlterDefaultPrivilegesStmt(_) => Definition::new("grant", "default-privileges"),
        NodeEnum::CommentStmt(comment) => Definition::on("comment", object_word(comment.objtype), None),
        NodeEnum::SecLabelStmt(label) => Definition::on("comment", object_word(label.objtype), None),
        NodeEnum::ReindexStmt(reindex) => Definition::on("vacuum", Some("index"), reindex.relation.as_ref()),
        _ => return None,
    })
}

/// The `object` of an item, for what the grammar calls an ObjectType.
pub(super) fn object_word(kind: i32) -> Option<&'static str> {
    Some(match ObjectType::try_from(kind).ok()? {
        ObjectType::ObjectTable | ObjectType::ObjectColumn | ObjectType::ObjectTabconstraint => "table",
        ObjectType::ObjectView => "view",
        ObjectType::ObjectMatview => "materialized-view",
        ObjectType::ObjectIndex => "index",
        ObjectType::ObjectSequence => "sequence",
        ObjectType::ObjectForeignTable => "foreign-table",
        ObjectType::ObjectSchema => "schema",
        ObjectType::ObjectDatabase => "database",
        ObjectType::ObjectRole => "role",
        ObjectType::ObjectFunction | ObjectType::ObjectProcedure | ObjectType::ObjectRoutine => "function",
        ObjectType::ObjectAggregate => "aggregate",
        ObjectType::ObjectType | ObjectType::ObjectAttribute => "type",
        ObjectType::ObjectDomain | ObjectType::ObjectDomconstraint => "domain",
        ObjectType::ObjectTrigger => "trigger",
        ObjectType::ObjectEventTrigger => "event-trigger",
        ObjectType::ObjectRule => "rule",
        ObjectType::ObjectPolicy => "policy",
        ObjectType::ObjectExtension => "extension",
        ObjectType::ObjectLanguage => "language",
        ObjectType::ObjectFdw => "foreign-data-wrapper",
        ObjectType::ObjectForeignServer => "server",
        ObjectType::ObjectUserMapping => "user-mapping",
        ObjectType::ObjectPublication => "publication",
        ObjectType::ObjectSubscription => "subscription",
        ObjectType::ObjectTablespace => "tablespace",
        ObjectType::ObjectOperator => "operator",
        ObjectType::ObjectOpclass => "operator-class",
        ObjectType::ObjectOpfamily => "operator-family",
        ObjectType::ObjectCast => "cast",
        ObjectType::ObjectCollation => "collation",
        ObjectType::ObjectConversion => "conversion",
        ObjectType::ObjectStatisticExt => "statistics",
        ObjectType::ObjectLargeobject => "large-object",
        ObjectType::ObjectTsconfiguration
        | ObjectType::ObjectTsdictionary
        | ObjectType::ObjectTsparser
        | ObjectType::ObjectTstemplate => "text-search",
        _ => return None,
    })
}
