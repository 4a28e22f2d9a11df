//! What SQL/JSON makes of values: its expressions, and JSON_TABLE.

use pg_query::{
    NodeEnum,
    protobuf::{JsonAggConstructor, JsonOutput, JsonTable, JsonValueExpr, Node},
};

use super::{
    expression::inner,
    flow::{Columns, Flow},
    from::{From, named},
    parse::NotUnderstood,
    scope::Scope,
    tracer::{Result, Tracer},
};

impl Tracer<'_> {
    /// An expression of JSON's; none of any other kind is known.
    pub(super) fn json(&mut self, node: &NodeEnum, scope: &Scope<'_>) -> Result<Flow> {
        match node {
            NodeEnum::JsonValueExpr(value) => self.json_value(Some(value), scope),
            NodeEnum::JsonIsPredicate(test) => self.computed(test.expr.as_deref(), scope),
            NodeEnum::JsonObjectConstructor(made) => {
                self.json_output(made.output.as_ref(), scope);
                self.computed(&made.exprs, scope)
            }
            NodeEnum::JsonArrayConstructor(made) => {
                self.json_output(made.output.as_ref(), scope);
                self.computed(&made.exprs, scope)
            }
            NodeEnum::JsonKeyValue(pair) => {
                let mut flow = self.computed(pair.key.as_deref(), scope)?;
                flow.join(&self.json_value(pair.value.as_deref(), scope)?);
                Ok(flow)
            }
            NodeEnum::JsonArgument(argument) => self.json_value(argument.val.as_deref(), scope),
            NodeEnum::JsonParseExpr(parse) => {
                self.json_output(parse.output.as_ref(), scope);
                self.json_value(parse.expr.as_deref(), scope)
            }
            NodeEnum::JsonScalarExpr(scalar) => {
                self.json_output(scalar.output.as_ref(), scope);
                self.computed(scalar.expr.as_deref(), scope)
            }
            NodeEnum::JsonSerializeExpr(text) => {
                self.json_output(text.output.as_ref(), scope);
                self.json_value(text.expr.as_deref(), scope)
            }
            NodeEnum::JsonFuncExpr(call) => {
                self.json_output(call.output.as_ref(), scope);
                let mut flow = self.json_value(call.context_item.as_deref(), scope)?;
                flow.join(&self.computed(call.pathspec.as_deref().into_iter().chain(&call.passing), scope)?);
                for behaviour in call.on_empty.iter().chain(&call.on_error) {
                    flow.join(&self.computed(behaviour.expr.as_deref(), scope)?);
                }
                Ok(flow)
            }
            NodeEnum::JsonArrayQueryConstructor(made) => {
                self.json_output(made.output.as_ref(), scope);
                let Some(query) = made.query.as_deref() else { return Ok(Flow::default()) };
                Ok(self.query(query, scope)?.all())
            }
            NodeEnum::JsonObjectAgg(made) => {
                let mut flow = self.json_aggregate(made.constructor.as_deref(), scope)?;
                if let Some(pair) = &made.arg {
                    flow.join(&self.computed(pair.key.as_deref(), scope)?);
                    flow.join(&self.json_value(pair.value.as_deref(), scope)?);
                }
                Ok(flow)
            }
            NodeEnum::JsonArrayAgg(made) => {
                let mut flow = self.json_aggregate(made.constructor.as_deref(), scope)?;
                flow.join(&self.json_value(made.arg.as_deref(), scope)?);
                Ok(flow)
            }
            _ => Err(NotUnderstood::new(
                "the statement holds an expression of a kind that the gate doesn't know",
            )),
        }
    }

    pub(super) fn json_value(&mut self, value: Option<&JsonValueExpr>, scope: &Scope<'_>) -> Result<Flow> {
        let Some(value) = value else { return Ok(Flow::default()) };
        self.computed(value.raw_expr.as_deref().into_iter().chain(value.formatted_expr.as_deref()), scope)
    }

    fn json_aggregate(&mut self, made: Option<&JsonAggConstructor>, scope: &Scope<'_>) -> Result<Flow> {
        let Some(made) = made else { return Ok(Flow::default()) };
        self.json_output(made.output.as_ref(), scope);
        let mut flow = self.computed(made.agg_filter.as_deref(), scope)?;
        for node in &made.agg_order {
            let Some(NodeEnum::SortBy(sort)) = inner(node) else { continue };
            flow.join(&self.optional(sort.node.as_deref(), scope)?);
        }
        if let Some(window) = &made.over {
            flow.join(&self.window(window, scope)?);
        }
        Ok(flow.into_computed())
    }

    /// The type that a value is RETURNING as.
    fn json_output(&mut self, output: Option<&JsonOutput>, scope: &Scope<'_>) {
        self.type_of(output.and_then(|output| output.type_name.as_ref()), scope);
    }

    pub(super) fn json_table(&mut self, table: &JsonTable, scope: &Scope<'_>) -> Result<From> {
        let mut flow = self.json_value(table.context_item.as_deref(), scope)?;
        flow.join(&self.computed(&table.passing, scope)?);
        self.influence(&flow);
        let mut columns = Columns::default();
        self.json_columns(&table.columns, &flow, &mut columns, scope)?;
        Ok(From::one(named(table.alias.as_ref(), "json_table", columns)))
    }

    fn json_columns(
        &mut self,
        list: &[Node],
        flow: &Flow,
        columns: &mut Columns,
        scope: &Scope<'_>,
    ) -> Result<()> {
        for node in list {
            let Some(NodeEnum::JsonTableColumn(column)) = inner(node) else { continue };
            self.type_of(column.type_name.as_ref(), scope);
            let behaviours = column.on_empty.iter().chain(&column.on_error);
            let mut own =
                self.computed(behaviours.filter_map(|behaviour| behaviour.expr.as_deref()), scope)?;
            own.join(flow);
            self.spend(own.cost());
            self.bounded()?;
            if column.columns.is_empty() {
                columns.push(column.name.as_str(), own);
            }
        }
        // Those of NESTED paths come last, wherever they are written.
        for node in list {
            if let Some(NodeEnum::JsonTableColumn(column)) = inner(node) {
                self.json_columns(&column.columns, flow, columns, scope)?;
            }
        }
        Ok(())
    }
}
