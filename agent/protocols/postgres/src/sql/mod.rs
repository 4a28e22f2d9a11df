//! What a statement does, understood by PostgreSQL's own grammar.
