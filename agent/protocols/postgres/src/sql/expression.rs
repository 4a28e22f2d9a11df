//! Where the value of an expression comes from.

use std::collections::HashMap;

use pg_query::{
    NodeEnum,
    protobuf::{self, AExpr, AExprKind, AIndirection, FuncCall, Node, SubLink, SubLinkType, WindowDef},
};

use super::{
    catalog::Function,
    flow::{Flow, Found},
    names::is_star,
    parse::NotUnderstood,
    scope::Scope,
    settings,
    tracer::{Result, Tracer, string, strings},
};

/// `pg_dump` sets `restrict_nonsystem_relation_kind` to this wherever `pg_settings` has it. No setting that the gate
/// minds takes this value: it is no boolean, encoding, role or library.
const OF_PG_DUMP: &str = "view, foreign-table";

impl Tracer<'_> {
    /// The flow of an expression. Sub-queries in it are followed, functions in it become items.
    pub(super) fn expression(&mut self, node: &Node, scope: &Scope<'_>) -> Result<Flow> {
        let Some(node) = &node.node else { return Ok(Flow::default()) };
        self.bounded()?;
        let before = self.tied();
        let flow = self.flow(node, scope)?;
        self.spend(flow.cost());
        // What AND and OR join has nothing to do with each other.
        if !matches!(node, NodeEnum::BoolExpr(_)) {
            self.tie_since(before, &flow);
        }
        if !matches!(node, NodeEnum::ColumnRef(_)) {
            self.compute(&flow);
        }
        Ok(flow)
    }

    fn flow(&mut self, node: &NodeEnum, scope: &Scope<'_>) -> Result<Flow> {
        match node {
            NodeEnum::AConst(_) | NodeEnum::ParamRef(_) => {
                self.meet(node);
                Ok(Flow::default())
            }
            NodeEnum::SetToDefault(_)
            | NodeEnum::SqlvalueFunction(_)
            | NodeEnum::MergeSupportFunc(_)
            | NodeEnum::String(_)
            | NodeEnum::Integer(_)
            | NodeEnum::Float(_) => Ok(Flow::default()),
            NodeEnum::CurrentOfExpr(_) => {
                self.by_cursor = true;
                Ok(Flow::default())
            }
            NodeEnum::ColumnRef(column) => self.column(&column.fields, scope),
            NodeEnum::CollateClause(collate) => self.optional(collate.arg.as_deref(), scope),
            NodeEnum::NamedArgExpr(named) => self.optional(named.arg.as_deref(), scope),
            NodeEnum::ResTarget(target) => self.optional(target.val.as_deref(), scope),
            NodeEnum::TypeCast(cast) => {
                self.follows(&**cast);
                self.type_of(cast.type_name.as_ref(), scope);
                Ok(self.optional(cast.arg.as_deref(), scope)?.into_computed())
            }
            NodeEnum::AExpr(expr) => {
                self.operators_of(expr, scope);
                self.computed(expr.lexpr.as_deref().into_iter().chain(expr.rexpr.as_deref()), scope)
            }
            NodeEnum::BoolExpr(expr) => self.computed(&expr.args, scope),
            NodeEnum::List(list) => self.computed(&list.items, scope),
            NodeEnum::NullTest(test) => self.computed(test.arg.as_deref(), scope),
            NodeEnum::BooleanTest(test) => self.computed(test.arg.as_deref(), scope),
            NodeEnum::CoalesceExpr(expr) => self.computed(&expr.args, scope),
            NodeEnum::MinMaxExpr(expr) => self.computed(&expr.args, scope),
            NodeEnum::RowExpr(expr) => self.computed(&expr.args, scope),
            NodeEnum::AArrayExpr(expr) => self.computed(&expr.elements, scope),
            NodeEnum::GroupingFunc(expr) => self.computed(&expr.args, scope),
            NodeEnum::MultiAssignRef(expr) => self.computed(expr.source.as_deref(), scope),
            NodeEnum::CaseExpr(expr) => {
                if expr.arg.is_some() {
                    self.operator(scope.statement, &["="]);
                }
                let parts =
                    expr.arg.as_deref().into_iter().chain(&expr.args).chain(expr.defresult.as_deref());
                self.computed(parts, scope)
            }
            NodeEnum::CaseWhen(when) => {
                self.computed(when.expr.as_deref().into_iter().chain(when.result.as_deref()), scope)
            }
            NodeEnum::AIndirection(indirection) => self.indirection(indirection, scope),
            NodeEnum::FuncCall(call) => self.function(call, scope),
            NodeEnum::SubLink(link) => self.sub_query(link, scope),
            NodeEnum::XmlExpr(expr) => self.computed(expr.named_args.iter().chain(&expr.args), scope),
            NodeEnum::XmlSerialize(expr) => {
                self.type_of(expr.type_name.as_ref(), scope);
                self.computed(expr.expr.as_deref(), scope)
            }
            other => self.json(other, scope),
        }
    }

    /// BETWEEN bears its keyword as its name and runs the two comparisons.
    fn operators_of(&mut self, expr: &AExpr, scope: &Scope<'_>) {
        let names: &[&[&str]] = match AExprKind::try_from(expr.kind) {
            Ok(AExprKind::AexprBetween | AExprKind::AexprBetweenSym) => &[&[">="], &["<="]],
            Ok(AExprKind::AexprNotBetween | AExprKind::AexprNotBetweenSym) => &[&["<"], &[">"]],
            _ => &[&strings(&expr.name)],
        };
        names.iter().for_each(|name| self.operator(scope.statement, name));
    }

    /// The flow of what is computed from all of these.
    pub(super) fn computed<'n>(
        &mut self,
        nodes: impl IntoIterator<Item = &'n Node>,
        scope: &Scope<'_>,
    ) -> Result<Flow> {
        let mut flow = Flow::default();
        for node in nodes {
            flow.join(&self.expression(node, scope)?);
        }
        Ok(flow.into_computed())
    }

    /// The flows of a row that is written out value by value, each of one column. Where the server would make several of one
    /// (`transformExpressionList` of its `parse_target.c`), nothing behind it stands where it is written.
    pub(super) fn row(&mut self, values: &[Node], scope: &Scope<'_>) -> Result<Vec<Flow>> {
        if values.iter().any(is_star) {
            return Err(NotUnderstood::new("VALUES with .* isn't followed: name the columns"));
        }
        values.iter().map(|value| self.expression(value, scope)).collect()
    }

    pub(super) fn optional(&mut self, node: Option<&Node>, scope: &Scope<'_>) -> Result<Flow> {
        node.map_or_else(|| Ok(Flow::default()), |node| self.expression(node, scope))
    }

    /// An expression that decides rows or their order.
    pub(super) fn deciding(&mut self, node: Option<&Node>, scope: &Scope<'_>) -> Result<()> {
        let flow = self.optional(node, scope)?;
        self.influence(&flow);
        Ok(())
    }

    fn column(&mut self, fields: &[Node], scope: &Scope<'_>) -> Result<Flow> {
        let names = strings(fields);
        let star = names.len() < fields.len();
        Ok(match (names.as_slice(), star) {
            ([], true) => {
                let mut flow = Flow::default();
                for range in scope.ranges.clone() {
                    flow.join(&self.whole_row(&range));
                }
                flow
            }
            ([range], true) => self.rows(None, range, scope),
            ([.., schema, range], true) => self.rows(Some(schema), range, scope),
            ([name], false) => self.unqualified(name, scope),
            ([range, name], false) => self.qualified(None, range, name, scope),
            ([.., schema, range, name], false) => self.qualified(Some(schema), range, name, scope),
            ([], false) => return Err(NotUnderstood::new("a column reference without a name")),
        })
    }

    fn rows(&mut self, schema: Option<&str>, range: &str, scope: &Scope<'_>) -> Flow {
        let ranges = scope.ranges_named(schema, range);
        if ranges.is_empty() {
            return self.unknown(range, scope);
        }
        let mut flow = Flow::default();
        ranges.iter().for_each(|range| flow.join(&self.whole_row(range)));
        flow.into_computed()
    }

    /// `(row).field`, `array[1]`: a field of a range's row is that column, unless a column goes by the range's name.
    fn indirection(&mut self, indirection: &AIndirection, scope: &Scope<'_>) -> Result<Flow> {
        let arg = indirection.arg.as_deref();
        if let ([field], Some(NodeEnum::ColumnRef(row))) =
            (indirection.indirection.as_slice(), arg.and_then(inner))
            && let (Some(name), [range]) = (string(field), strings(&row.fields).as_slice())
            && row.fields.len() == 1
            && self.is_row(range, scope)
            && let [range] = scope.ranges_named(None, range).as_slice()
            && let Found::Certain(flow) = self.column_of(range, name)
        {
            return Ok(flow);
        }
        let mut flow = self.optional(arg, scope)?;
        for step in &indirection.indirection {
            match &step.node {
                Some(NodeEnum::String(field)) => flow.join(&self.field(&field.sval, scope)),
                Some(NodeEnum::AIndices(index)) => {
                    let bounds = index.lidx.as_deref().into_iter().chain(index.uidx.as_deref());
                    flow.join(&self.computed(bounds, scope)?);
                }
                _ => {}
            }
        }
        Ok(flow.into_computed())
    }

    /// A function's result, with what decides the order and choice of what it is fed.
    pub(super) fn function(&mut self, call: &FuncCall, scope: &Scope<'_>) -> Result<Flow> {
        self.follows(call);
        let (schema, name) = function_name(call)?;
        self.session_function(schema, name, call, scope)?;
        if call.args.len() == 1 {
            // Where no function fits, it is a cast (`func_get_detail` of the server's `parse_func.c`).
            self.type_called(scope.statement, name);
        }
        let called = self.call(scope.statement, schema, name);
        let parts = call.args.iter().chain(&call.agg_order).chain(call.agg_filter.as_deref());
        let mut flow = Flow::default();
        for part in parts {
            match inner(part) {
                Some(NodeEnum::SortBy(sort)) => flow.join(&self.optional(sort.node.as_deref(), scope)?),
                _ => flow.join(&self.expression(part, scope)?),
            }
        }
        if let Some(window) = &call.over {
            flow.join(&self.window(window, scope)?);
        }
        let fits = |function: &&Function| schema.is_none_or(|schema| schema == &*function.schema);
        let mut candidates = called.candidates.iter().filter(fits);
        if candidates.clone().any(|function| function.returns_set) {
            // Its arguments decide how many rows there are.
            self.influence(&flow);
        }
        if candidates.any(|function| function.volatility == 'v') {
            // It may keep or pass on what it is given: in a setting, a sequence, a lock, a notification.
            self.copy(&flow, &[]);
        }
        flow.join(&Flow { untraced: called.untraced, ..Flow::default() });
        Ok(flow.into_computed())
    }

    /// What a window is cut and ordered by.
    pub(super) fn window(&mut self, window: &WindowDef, scope: &Scope<'_>) -> Result<Flow> {
        let mut flow = Flow::default();
        for node in window.partition_clause.iter().chain(&window.order_clause) {
            let node = match inner(node) {
                Some(NodeEnum::SortBy(sort)) => {
                    self.operator(scope.statement, &sort_operator(sort));
                    sort.node.as_deref()
                }
                _ => Some(node),
            };
            flow.join(&self.optional(node, scope)?);
        }
        flow.join(&self.optional(window.start_offset.as_deref(), scope)?);
        flow.join(&self.optional(window.end_offset.as_deref(), scope)?);
        self.influence(&flow);
        Ok(flow)
    }

    /// Functions that do what statements do.
    fn session_function(
        &mut self,
        schema: Option<&str>,
        name: &str,
        call: &FuncCall,
        scope: &Scope<'_>,
    ) -> Result<()> {
        if schema.is_some_and(|schema| schema != "pg_catalog") {
            return Ok(());
        }
        match name {
            "pg_notify" if self.in_view > 0 => self.function_item(scope.statement, "pg_catalog", name),
            "pg_notify" => self.bare("notify"),
            "set_config" if self.in_view > 0 => {
                self.view_sets = true;
                return Err(NotUnderstood::new("a view that calls set_config is refused"));
            }
            "set_config" => {
                self.literals_matter = true;
                self.computes_settings = true;
                self.set_config(call)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn set_config(&mut self, call: &FuncCall) -> Result<()> {
        let mut constants = call.args.iter().map(|arg| match inner(arg) {
            Some(NodeEnum::NamedArgExpr(_)) => None,
            _ => literal_text(arg),
        });
        let (setting, value) = (constants.next().flatten(), constants.next().flatten());
        let Some(setting) = setting else {
            if value.as_deref() == Some(OF_PG_DUMP) {
                self.bare("set");
                return Ok(());
            }
            return Err(NotUnderstood::new(
                "set_config is refused unless the setting's name is a plain literal",
            ));
        };
        match value {
            Some(value) => settings::setting_is_safe(&setting, &value).map_err(NotUnderstood::new)?,
            _ if settings::value_matters(&setting) => {
                return Err(NotUnderstood::new(format!(
                    "set_config of {setting} is refused unless its value is a plain literal"
                )));
            }
            _ => {}
        }
        self.bare(if settings::is_role(&setting) { "set-role" } else { "set" });
        Ok(())
    }

    /// A sub-query as an expression: a scalar one hands its value on, any other is computed.
    fn sub_query(&mut self, link: &SubLink, scope: &Scope<'_>) -> Result<Flow> {
        let Some(query) = link.subselect.as_deref() else {
            return Err(NotUnderstood::new("a sub-query without a query"));
        };
        let outer = Scope { statement: "select", ctes: HashMap::new(), ..Scope::within(scope, Vec::new()) };
        self.follows(link);
        let columns = self.query(query, &outer)?;
        match strings(&link.oper_name).as_slice() {
            [] if link.testexpr.is_some() => self.operator(scope.statement, &["="]),
            name => self.operator(scope.statement, name),
        }
        let test = self.optional(link.testexpr.as_deref(), scope)?;
        Ok(match SubLinkType::try_from(link.sub_link_type) {
            Ok(SubLinkType::ExistsSublink) => {
                Flow { untraced: columns.all().untraced, computed: true, ..Flow::default() }
            }
            Ok(SubLinkType::ExprSublink) => match (columns.list.as_slice(), &columns.rest) {
                ([column], None) => column.flow.clone(),
                _ => columns.all(),
            },
            _ => {
                let mut flow = columns.all();
                flow.join(&test);
                flow.into_computed()
            }
        })
    }
}

pub(super) fn inner(node: &Node) -> Option<&NodeEnum> {
    node.node.as_ref()
}

pub(super) fn sort_operator(sort: &protobuf::SortBy) -> Vec<&str> {
    strings(&sort.use_op)
}

/// Schema, if written, and name of a called function.
pub(super) fn function_name(call: &FuncCall) -> Result<(Option<&str>, &str)> {
    match strings(&call.funcname).as_slice() {
        [name] => Ok((None, name)),
        [.., schema, name] => Ok((Some(schema), name)),
        [] => Err(NotUnderstood::new("a function call without a name")),
    }
}

/// The text of a plain literal. A cast one has none, as a cast may change it: `'%x'::char(1)` is `%`.
pub(super) fn literal_text(node: &Node) -> Option<String> {
    use protobuf::a_const::Val;
    match inner(node)? {
        NodeEnum::AConst(constant) => match constant.val.as_ref()? {
            Val::Sval(text) => Some(text.sval.clone()),
            Val::Ival(number) => Some(number.ival.to_string()),
            Val::Fval(number) => Some(number.fval.clone()),
            Val::Boolval(flag) => Some(flag.boolval.to_string()),
            Val::Bsval(_) => None,
        },
        NodeEnum::String(text) => Some(text.sval.clone()),
        NodeEnum::Integer(number) => Some(number.ival.to_string()),
        NodeEnum::Float(number) => Some(number.fval.clone()),
        NodeEnum::Boolean(flag) => Some(flag.boolval.to_string()),
        _ => None,
    }
}
