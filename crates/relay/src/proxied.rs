//! Clients behind load balancers: where a request comes from is believed from configured addresses only.
//!
//! A balancer that passes TLS through says it before TLS, in the PROXY protocol (haproxy.org, "The PROXY protocol", versions
//! 1 and 2). One that ends TLS and begins another says it in `Forwarded` (RFC 7239) or `X-Forwarded-For`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::HeaderMap;
use http::header::FORWARDED;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::config::{ClientField, Config};

/// Version 2 begins with these (section 2.2).
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, with its end (section 2.1).
const MAX_LINE: usize = 107;
/// The longest rest of a header of version 2 that is read: addresses take 216 bytes at most, then come TLVs.
const MAX_REST: usize = 4096;
/// Hops of a forwarded request that are looked at; a list that is longer is nobody's word.
const MAX_HOPS: usize = 32;

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Reads the header that stands before TLS, and not a byte more. `None` where the balancer speaks for itself, as in its
/// own checks of health.
pub(crate) async fn header<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Option<SocketAddr>> {
    // No header of either version is shorter.
    let mut begin = [0; SIGNATURE.len()];
    stream.read_exact(&mut begin).await?;
    if begin == SIGNATURE { version_2(stream).await } else { version_1(stream, &begin).await }
}

async fn version_2<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Option<SocketAddr>> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let [version_command, family, length @ ..] = head;
    let length = usize::from(u16::from_be_bytes(length));
    if length > MAX_REST {
        return Err(bad("the header is too long"));
    }
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await?;
    match version_command {
        0x20 => return Ok(None),
        0x21 => {}
        _ => return Err(bad("neither LOCAL nor PROXY of version 2")),
    }
    // TCP over IPv4 and IPv6: source, destination, their ports. A stream of another family has no address to tell.
    let short = || bad("the addresses are cut off");
    match family {
        0x11 if length < 12 => Err(short()),
        0x21 if length < 36 => Err(short()),
        0x11 => {
            let source: [u8; 4] = take(&rest, 0).ok_or_else(short)?;
            let port: [u8; 2] = take(&rest, 8).ok_or_else(short)?;
            Ok(Some(SocketAddr::from((Ipv4Addr::from(source), u16::from_be_bytes(port)))))
        }
        0x21 => {
            let source: [u8; 16] = take(&rest, 0).ok_or_else(short)?;
            let port: [u8; 2] = take(&rest, 32).ok_or_else(short)?;
            Ok(Some(SocketAddr::from((Ipv6Addr::from(source), u16::from_be_bytes(port)))))
        }
        0x00 => Ok(None),
        _ => Err(bad("neither TCP over IPv4 nor over IPv6")),
    }
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

async fn version_1<S: AsyncRead + Unpin>(stream: &mut S, begin: &[u8]) -> io::Result<Option<SocketAddr>> {
    if !begin.starts_with(b"PROXY ") {
        return Err(bad("no PROXY protocol"));
    }
    let mut line = begin.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() == MAX_LINE {
            return Err(bad("the line is too long"));
        }
        line.push(stream.read_u8().await?);
    }
    let line = std::str::from_utf8(&line).map_err(|_| bad("the line is not ASCII"))?;
    parse_line(line.trim_end_matches("\r\n")).ok_or_else(|| bad("the line is not of the protocol"))
}

/// `PROXY TCP4 SOURCE DESTINATION PORT PORT`; `PROXY UNKNOWN` tells nothing. The outer `None` is a wrong line.
fn parse_line(line: &str) -> Option<Option<SocketAddr>> {
    let mut words = line.split(' ').skip(1);
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(None);
    }
    let (source, destination): (IpAddr, IpAddr) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let number = |text: &str| text.bytes().all(|c| c.is_ascii_digit()).then(|| text.parse::<u16>().ok())?;
    let (port, _) = (number(words.next()?)?, number(words.next()?)?);
    let fits = match family {
        "TCP4" => source.is_ipv4() && destination.is_ipv4(),
        "TCP6" => source.is_ipv6() && destination.is_ipv6(),
        _ => false,
    };
    (fits && words.next().is_none()).then_some(Some(SocketAddr::new(source, port)))
}

/// The client of a request that came from `peer`: what the last of our own balancers says, and so on backwards as long as
/// it is one of ours who says it. Whatever cannot be read is said by nobody.
pub(crate) fn client(headers: &HeaderMap, peer: IpAddr, config: &Config) -> IpAddr {
    let trusted = &config.trusted_proxies;
    let mut client = peer;
    // With the PROXY protocol the balancer has said it before: TLS goes through it, and fields are the client's own words.
    if config.proxy_protocol || trusted.is_empty() || !trusted.contain(peer) {
        return client;
    }
    let hops: Vec<_> = match config.client_field {
        ClientField::Forwarded => hops(headers, FORWARDED.as_str()).map(forwarded_for).collect(),
        ClientField::XForwardedFor => hops(headers, "x-forwarded-for").map(address).collect(),
    };
    for hop in hops.into_iter().rev().take(MAX_HOPS) {
        match hop {
            Some(said) => client = said.to_canonical(),
            None => return client,
        }
        if !trusted.contain(client) {
            return client;
        }
    }
    client
}

/// The elements of a list, over all fields of the name (RFC 9110 §5.6.1).
fn hops<'a>(headers: &'a HeaderMap, name: &'static str) -> impl Iterator<Item = &'a str> {
    // What is no text is an element that cannot be read.
    headers.get_all(name).into_iter().flat_map(|field| field.to_str().unwrap_or("?").split(',')).map(str::trim)
}

/// `for=` of one element of `Forwarded`.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let mut found = element.split(';').filter_map(|pair| pair.trim().split_once('='));
    let (_, node) = found.find(|(name, _)| name.eq_ignore_ascii_case("for"))?;
    let node = match node.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"')?,
        None => node,
    };
    address(node)
}

/// An address, with or without a port, IPv6 also in brackets.
fn address(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address.ip());
    }
    text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::conditional::tests::headers;

    async fn read(bytes: &[u8]) -> (Result<Option<String>, String>, usize) {
        let mut rest = bytes;
        let outcome = header(&mut rest).await;
        (outcome.map(|address| address.map(|a| a.to_string())).map_err(|e| e.to_string()), rest.len())
    }

    fn v2(version_command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[version_command, family], &length, rest].concat()
    }

    // The examples of the protocol's text, then what it rules out; what follows the header is left alone.
    #[tokio::test]
    async fn version_1_is_read_to_its_end() {
        for (line, expected) in [
            ("PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n", Some("192.0.2.7:56324")),
            ("PROXY TCP6 2001:db8::1 2001:db8::2 4124 443\r\n", Some("[2001:db8::1]:4124")),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None),
        ] {
            let (outcome, left) = read(format!("{line}\x16\x03\x01").as_bytes()).await;
            assert_eq!((outcome, left), (Ok(expected.map(str::to_owned)), 3), "{line}");
        }
        for line in [
            "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443",
            "PROXY TCP4 192.0.2.7 198.51.100.1 56324\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443 1\r\n",
            "PROXY TCP4 2001:db8::1 198.51.100.1 56324 443\r\n",
            "PROXY TCP6 192.0.2.7 198.51.100.1 56324 443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 +5632 443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n",
            "PROXY TCP4  192.0.2.7 198.51.100.1 56324 443\r\n",
            "PROXY UDP4 192.0.2.7 198.51.100.1 56324 443\r\n",
            "PROXY TCP4\u{e9} 192.0.2.7 198.51.100.1 5 443\r\n",
            "proxy TCP4 192.0.2.7 198.51.100.1 56324 443\r\n",
            "GET /v1 HTTP/1.1\r\nHost: relay\r\n\r\n",
        ] {
            assert!(read(line.as_bytes()).await.0.is_err(), "{line}");
        }
        let endless = format!("PROXY UNKNOWN {}", "x".repeat(1000));
        assert_eq!(read(endless.as_bytes()).await, (Err("the line is too long".to_owned()), endless.len() - MAX_LINE));
    }

    #[tokio::test]
    async fn version_2_is_read_to_its_end() {
        let v4 = [192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 0x04, 0x01, 0xbb];
        let mut v6 = [0; 36];
        v6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        v6[15] = 1;
        v6[33] = 9;
        let with_tlv = [&v4[..], &[0x04, 0, 1, 0]].concat();
        for (bytes, expected) in [
            (v2(0x21, 0x11, &v4), Some("192.0.2.7:56324")),
            (v2(0x21, 0x11, &with_tlv), Some("192.0.2.7:56324")),
            (v2(0x21, 0x21, &v6), Some("[2001:db8::1]:9")),
            (v2(0x20, 0x00, &[]), None),
            (v2(0x20, 0x11, &v4), None),
            (v2(0x21, 0x00, &[]), None),
        ] {
            let (outcome, left) = read(&[&bytes[..], b"tls"].concat()).await;
            assert_eq!((outcome, left), (Ok(expected.map(str::to_owned)), 3), "{bytes:?}");
        }
        for bytes in [
            v2(0x21, 0x11, &v4[..11]),
            v2(0x21, 0x21, &v6[..20]),
            v2(0x11, 0x11, &v4),
            v2(0x22, 0x11, &v4),
            v2(0x21, 0x12, &v4),
            v2(0x21, 0x31, &[0; 216]),
            v2(0x21, 0x11, &vec![0; MAX_REST + 1]),
            v2(0x21, 0x11, &v4)[..20].to_vec(),
        ] {
            assert!(read(&bytes).await.0.is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn only_our_balancers_are_believed() {
        let config = Config::parse("trusted_proxies = [\"10.0.0.0/8\", \"2001:db8:f::/48\"]").unwrap();
        let forwarded = Config { client_field: ClientField::Forwarded, ..config.clone() };
        let ask = |config: &Config, peer: &str, fields: &[(&'static str, &str)]| {
            client(&headers(fields), peer.parse().unwrap(), config).to_string()
        };
        let (f, x) = ("forwarded", "x-forwarded-for");
        // Where TLS goes through, a field is the client's own word, also that of a client in the balancers' network.
        let through = Config { proxy_protocol: true, ..config.clone() };
        assert_eq!(ask(&through, "10.0.0.1", &[(x, "198.51.100.7")]), "10.0.0.1");
        for (peer, fields, expected) in [
            // A stranger says what they like.
            ("192.0.2.9", vec![(x, "198.51.100.7")], "192.0.2.9"),
            ("192.0.2.9", vec![(f, "for=198.51.100.7")], "192.0.2.9"),
            ("10.0.0.1", vec![], "10.0.0.1"),
            ("10.0.0.1", vec![(x, "198.51.100.7")], "198.51.100.7"),
            ("::ffff:10.0.0.1", vec![(x, "198.51.100.7")], "198.51.100.7"),
            // What stood there before ours wrote is the client's.
            ("10.0.0.1", vec![(x, "203.0.113.1, 198.51.100.7")], "198.51.100.7"),
            ("10.0.0.1", vec![(x, "203.0.113.1"), (x, "198.51.100.7, 10.9.9.9")], "198.51.100.7"),
            ("10.0.0.1", vec![(x, "10.0.0.3,10.0.0.2")], "10.0.0.3"),
            ("10.0.0.1", vec![(x, "198.51.100.7:4711")], "198.51.100.7"),
            ("10.0.0.1", vec![(x, "garbage")], "10.0.0.1"),
            ("10.0.0.1", vec![(x, "198.51.100.7, garbage, 10.0.0.2")], "10.0.0.2"),
            ("10.0.0.1", vec![(x, "")], "10.0.0.1"),
            // The field that the balancer does not write is the client's.
            ("10.0.0.1", vec![(f, "for=203.0.113.1"), (x, "198.51.100.7")], "198.51.100.7"),
            ("10.0.0.1", vec![(f, "for=203.0.113.1")], "10.0.0.1"),
        ] {
            assert_eq!(ask(&config, peer, &fields), expected, "{peer} {fields:?}");
        }
        for (peer, fields, expected) in [
            ("10.0.0.1", vec![(f, "for=198.51.100.7;proto=https;by=10.0.0.1")], "198.51.100.7"),
            ("10.0.0.1", vec![(f, "by=10.0.0.1; For=\"[2001:db8::17]:4711\"")], "2001:db8::17"),
            ("10.0.0.1", vec![(f, "for=\"[2001:db8::17]\"")], "2001:db8::17"),
            ("10.0.0.1", vec![(f, "for=203.0.113.1, for=198.51.100.7")], "198.51.100.7"),
            ("10.0.0.1", vec![(f, "for=_hidden")], "10.0.0.1"),
            ("10.0.0.1", vec![(f, "for=unknown"), (x, "198.51.100.7")], "10.0.0.1"),
            ("10.0.0.1", vec![(x, "198.51.100.7")], "10.0.0.1"),
            ("2001:db8:f::1", vec![(f, "for=198.51.100.7")], "198.51.100.7"),
        ] {
            assert_eq!(ask(&forwarded, peer, &fields), expected, "{peer} {fields:?}");
        }
        let long = vec!["10.0.0.2"; 10_000].join(",");
        assert_eq!(ask(&config, "10.0.0.1", &[(x, &format!("198.51.100.7,{long}"))]), "10.0.0.2");
    }
}
