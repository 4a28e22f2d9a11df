//! What the types of PostgreSQL's own catalog are to a mask (`src/include/catalog/pg_type.dat`).

/// What a value is to a mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Read as text by its clients; the same bytes in both formats.
    Text,
    /// Text filled up with spaces.
    Padded,
    Json,
    Jsonb,
    Bytea,
    Integer,
    Float,
    Numeric,
    /// Holds text in a syntax of its own; its binary format isn't read.
    Encoded,
    /// Can't hold what detectors look for.
    Inert,
    /// Of elements of this type.
    Range(u32),
    /// Of ranges of elements of this type.
    Multirange(u32),
    /// Of elements of this type; 0 if only the value tells.
    Array(u32),
    /// A composite value.
    Record,
    /// Not of the catalog: enumerations, extensions' and users' types.
    Unknown,
}

impl Kind {
    pub(super) fn of(oid: u32) -> Self {
        match oid {
            // name, text, pg_node_tree, unknown, varchar, refcursor, cstring, xml.
            19 | 25 | 194 | 705 | 1043 | 1790 | 2275 | 142 => Self::Text,
            1042 => Self::Padded,
            114 => Self::Json,
            3802 => Self::Jsonb,
            // pg_mcv_list is written as bytea.
            17 | 5017 => Self::Bytea,
            20 | 21 | 23 => Self::Integer,
            700 | 701 => Self::Float,
            1700 => Self::Numeric,
            // tsvector, tsquery, gtsvector, jsonpath.
            3614 | 3615 | 3642 | 4072 => Self::Encoded,
            // int4range, numrange, int8range, and their multiranges.
            3904 => Self::Range(23),
            3906 => Self::Range(1700),
            3926 => Self::Range(20),
            4451 => Self::Multirange(23),
            4532 => Self::Multirange(1700),
            4536 => Self::Multirange(20),
            2249 => Self::Record,
            2277 => Self::Array(0),
            _ if is_inert(oid) => Self::Inert,
            _ => array_element(oid).map_or(Self::Unknown, Self::Array),
        }
    }

    /// Any text is a value of it.
    pub(super) fn is_text(self) -> bool {
        matches!(self, Self::Text | Self::Padded | Self::Json | Self::Jsonb)
    }

    /// Its binary format can be scanned, as far as the type alone tells.
    pub(super) fn is_read_in_binary(self) -> bool {
        match self {
            Self::Encoded | Self::Unknown => false,
            Self::Array(element) => element == 0 || Self::of(element).is_read_in_binary(),
            _ => true,
        }
    }
}

fn is_inert(oid: u32) -> bool {
    match oid {
        // bool, "char", int2vector, regproc, oid, tid, xid, cid, oidvector.
        16 | 18 | 22 | 24 | 26..=30
        // point, lseg, path, box, polygon, line, circle; cidr, money, macaddr8, macaddr, inet.
        | 600..=604 | 628 | 718 | 650 | 774 | 790 | 829 | 869
        // aclitem; date, time, timestamp, timestamptz, interval, timetz; bit, varbit.
        | 1033 | 1082 | 1083 | 1114 | 1184 | 1186 | 1266 | 1560 | 1562
        // regprocedure to regtype, void, uuid, txid_snapshot, pg_lsn, pg_ndistinct, pg_dependencies.
        | 2202..=2206 | 2278 | 2950 | 2970 | 3220 | 3361 | 3402
        // regconfig, regdictionary, regnamespace, regrole, regcollation, pg_snapshot, xid8.
        | 3734 | 3769 | 4089 | 4096 | 4191 | 5038 | 5069
        // tsrange, tstzrange, daterange and their multiranges.
        | 3908 | 3910 | 3912 | 4533..=4535 => true,
        _ => false,
    }
}

fn array_element(oid: u32) -> Option<u32> {
    Some(match oid {
        143 => 142,
        199 => 114,
        271 => 5069,
        629 => 628,
        651 => 650,
        719 => 718,
        775 => 774,
        791 => 790,
        1000 => 16,
        1001 => 17,
        1002 => 18,
        1003 => 19,
        1005 => 21,
        1006 => 22,
        1007 => 23,
        1008 => 24,
        1009 => 25,
        1010 => 27,
        1011 => 28,
        1012 => 29,
        1013 => 30,
        1014 => 1042,
        1015 => 1043,
        1016 => 20,
        1017..=1020 => oid - 417,
        1021 => 700,
        1022 => 701,
        1027 => 604,
        1028 => 26,
        1034 => 1033,
        1040 => 829,
        1041 => 869,
        1115 => 1114,
        1182 => 1082,
        1183 => 1083,
        1185 => 1184,
        1187 => 1186,
        1231 => 1700,
        1263 => 2275,
        1270 => 1266,
        1561 => 1560,
        1563 => 1562,
        2201 => 1790,
        2207..=2211 => oid - 5,
        2287 => 2249,
        2949 => 2970,
        2951 => 2950,
        3221 => 3220,
        3643 => 3614,
        3644 => 3642,
        3645 => 3615,
        3735 => 3734,
        3770 => 3769,
        3807 => 3802,
        3905 | 3907 | 3909 | 3911 | 3913 | 3927 => oid - 1,
        4073 => 4072,
        4090 => 4089,
        4097 => 4096,
        4192 => 4191,
        5039 => 5038,
        6150 => 4451,
        6151 => 4532,
        6152 => 4533,
        6153 => 4534,
        6155 => 4535,
        6157 => 4536,
        _ => return None,
    })
}
