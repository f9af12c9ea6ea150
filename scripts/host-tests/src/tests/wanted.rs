// SPDX-License-Identifier: GPL-2.0-or-later

use super::config;
use crate::rules::wanted::{
    parse,
    Malformed,
    Wanted, //
};
use proptest::prelude::*;

#[test]
fn lines() {
    let wanted = |object: Option<&'static str>, function: &'static str, position| {
        Ok(Some(Wanted {
            object: object.map(str::as_bytes),
            function: function.as_bytes(),
            position,
        }))
    };
    for (line, expected) in [
        ("", Ok(None)),
        (" \t", Ok(None)),
        ("# vmlinux:pipe_read", Ok(None)),
        ("vmlinux:pipe_read", wanted(None, "pipe_read", 0)),
        (" vmlinux:pipe_read\r", wanted(None, "pipe_read", 0)),
        ("vmlinux:pipe_read,2", wanted(None, "pipe_read", 2)),
        ("ext4:f.isra.0,0", wanted(Some("ext4"), "f.isra.0", 0)),
        ("m:_RNvCs1_1m1f", wanted(Some("m"), "_RNvCs1_1m1f", 0)),
        ("pipe_read", Err(Malformed)),
        (":pipe_read", Err(Malformed)),
        ("vmlinux:", Err(Malformed)),
        ("vmlinux:,1", Err(Malformed)),
        ("vmlinux:pipe_read,", Err(Malformed)),
        ("vmlinux:pipe_read,x", Err(Malformed)),
        ("vmlinux:pipe_read,-1", Err(Malformed)),
        ("vmlinux:pipe_read,1,2", Err(Malformed)),
        ("vmlinux:pipe_read,99999999999999999999", Err(Malformed)),
        ("vmlinux: pipe_read", Err(Malformed)),
        ("vmlinux:pipe read", Err(Malformed)),
        ("vmlinux:pipe_read\0", Err(Malformed)),
    ] {
        assert_eq!(parse(line.as_bytes()), expected, "{line:?}");
    }
}

proptest! {
    #![proptest_config(config())]

    /// What is written in the format is read so, and nothing at all panics.
    #[test]
    fn what_is_written_is_read(
        object in "[a-z_][a-z0-9_]{0,20}",
        function in "[A-Za-z_$.][A-Za-z0-9_$.]{0,40}",
        position in 0_usize..5000,
        noise in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let line = format!("{object}:{function},{position}");
        let wanted = parse(line.as_bytes()).unwrap().unwrap();
        prop_assert_eq!(wanted.function, function.as_bytes());
        prop_assert_eq!(wanted.position, position);
        prop_assert_eq!(wanted.object.unwrap_or(b"vmlinux"), object.as_bytes());
        let _ = parse(&noise);
    }
}
