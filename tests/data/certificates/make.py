#!/usr/bin/env python3
"""Makes the certificates of this directory, each with one odd part, and the table of what is expected of them.

    make.py DIRECTORY

The encoder is this file's own, since no library writes certificates that are wrong on purpose. The keys come from fixed
seeds, so each run makes the same bytes; they protect nothing. `expected.tsv` has one line for each certificate:

    name      the file, without `.der`
    reads     yes, or no: the certificate cannot be used
    sign      exit code of `cba-agent sign` where a token holds the certificate and its key
    emails    the e-mail addresses that are found, or -
    says      a text that `cba-agent doctor --certificate` shows, or -
    openssl   whether `openssl x509` reads it
"""

import hashlib
import pathlib
import random
import sys

# --- DER ------------------------------------------------------------------------------------------------------------


def length(count):
    if count < 128:
        return bytes([count])
    digits = count.to_bytes((count.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(digits)]) + digits


def tlv(tag, *parts):
    content = b"".join(parts)
    return bytes([tag]) + length(len(content)) + content


def sequence(*parts):
    return tlv(0x30, *parts)


def integer(value):
    return tlv(2, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def oid(text):
    first, second, *rest = map(int, text.split("."))
    out = b""
    for arc in [first * 40 + second, *rest]:
        digits = [arc & 0x7F]
        while arc := arc >> 7:
            digits.append(arc & 0x7F | 0x80)
        out += bytes(reversed(digits))
    return tlv(6, out)


def bits(content, unused=0):
    return tlv(3, bytes([unused]), content)


def utf8(text):
    return tlv(0x0C, text.encode())


NULL = b"\x05\x00"

# --- RSA ------------------------------------------------------------------------------------------------------------


def prime(source, size):
    small = [n for n in range(3, 2000, 2) if all(n % d for d in range(3, int(n**0.5) + 1, 2))]
    while True:
        candidate = source.getrandbits(size) | 1 | 3 << (size - 2)
        if any(candidate % n == 0 for n in small) or candidate % 65537 == 1:
            continue
        odd, twos = candidate - 1, 0
        while odd % 2 == 0:
            odd, twos = odd // 2, twos + 1
        for base in small[:24]:
            power = pow(base, odd, candidate)
            if power in (1, candidate - 1):
                continue
            if not any((power := power * power % candidate) == candidate - 1 for _ in range(twos - 1)):
                break
        else:
            return candidate


class Key:
    def __init__(self, seed, size=2048):
        source = random.Random(seed)
        self.p, self.q = prime(source, size // 2), prime(source, size // 2)
        self.n, self.e = self.p * self.q, 65537
        self.d = pow(self.e, -1, (self.p - 1) * (self.q - 1))

    def private(self):
        """PKCS#8."""
        parts = [0, self.n, self.e, self.d, self.p, self.q, self.d % (self.p - 1), self.d % (self.q - 1)]
        key = sequence(*map(integer, parts), integer(pow(self.q, -1, self.p)))
        return sequence(integer(0), sequence(oid("1.2.840.113549.1.1.1"), NULL), tlv(4, key))

    def public(self):
        return sequence(integer(self.n), integer(self.e))

    def sign(self, body):
        """RSASSA-PKCS1-v1_5 with SHA-256."""
        digest = sequence(sequence(oid("2.16.840.1.101.3.4.2.1"), NULL), tlv(4, hashlib.sha256(body).digest()))
        size = (self.n.bit_length() + 7) // 8
        block = b"\x00\x01" + b"\xff" * (size - len(digest) - 3) + b"\x00" + digest
        return pow(int.from_bytes(block, "big"), self.d, self.n).to_bytes(size, "big")


# --- Certificates ---------------------------------------------------------------------------------------------------

CN, EMAIL = "2.5.4.3", "1.2.840.113549.1.9.1"
SHA256_RSA = sequence(oid("1.2.840.113549.1.1.11"), NULL)
LONG_OID = oid("1.3.6.1.4.1." + ".".join([str(2**62 + n) for n in range(12)]))
ADDRESS = "integration@example.com"


def attribute(kind, value):
    return sequence(oid(kind) if isinstance(kind, str) else kind, value)


def name(*attributes):
    """Each in a set of its own."""
    return sequence(*[tlv(0x31, one) for one in attributes])


def extension(kind, value, critical=None, tag=4):
    flag = b"" if critical is None else tlv(1, critical)
    return sequence(oid(kind) if isinstance(kind, str) else kind, flag, tlv(tag, value))


TRUE = b"\xff"


def constraints(value=b"", critical=TRUE):
    return extension("2.5.29.19", sequence(value), critical)


def key_usage(value=None, critical=TRUE):
    return extension("2.5.29.15", value if value is not None else bits(b"\x80", 7), critical)


def extended(*usages, critical=None):
    return extension("2.5.29.37", sequence(*usages), critical)


CLIENT_AUTH, EMAIL_PROTECTION = oid("1.3.6.1.5.5.7.3.2"), oid("1.3.6.1.5.5.7.3.4")


def san(*entries, critical=None):
    return extension("2.5.29.17", sequence(*entries), critical)


def email(text=ADDRESS):
    return tlv(0x81, text if isinstance(text, bytes) else text.encode())


def other_name(kind, value):
    return tlv(0xA0, oid(kind), tlv(0xA0, value))


GOOD = [constraints(), key_usage(), extended(CLIENT_AUTH, EMAIL_PROTECTION), san(email())]


def without(*parts):
    return [one for one in GOOD if one not in parts]


def plus(*parts):
    return GOOD + list(parts)


def replaced(old, *new):
    at = GOOD.index(old)
    return GOOD[:at] + list(new) + GOOD[at + 1 :]


class Parts:
    """A good certificate's parts, of which a case replaces some."""

    version = tlv(0xA0, integer(2))
    serial = integer(0x1234)
    algorithm = SHA256_RSA
    issuer = name(attribute(CN, utf8("Corpus CA")))
    begin = tlv(0x17, b"200101000000Z")
    end = tlv(0x18, b"21190101000000Z")
    subject = name(attribute(CN, utf8("corpus")))
    unique_ids = b""
    more = b""
    outer_algorithm = SHA256_RSA

    def __init__(self, subject_key, ca, **changes):
        self.key_algorithm = sequence(oid("1.2.840.113549.1.1.1"), NULL)
        self.key = bits(subject_key.public())
        self.ca = ca
        self.extensions = GOOD
        self.list = None
        self.signature = None
        for what, value in changes.items():
            assert hasattr(self, what), what
            setattr(self, what, value)

    def fields(self):
        extensions = self.list
        if extensions is None:
            extensions = b"" if self.extensions is None else tlv(0xA3, sequence(*self.extensions))
        key = sequence(self.key_algorithm, self.key)
        validity = sequence(self.begin, self.end)
        start = [self.version, self.serial, self.algorithm, self.issuer, validity, self.subject, key]
        return [*start, self.unique_ids, extensions, self.more]

    def parts(self):
        body = sequence(*self.fields())
        signature = self.signature if self.signature is not None else bits(self.ca.sign(body))
        return [body, self.outer_algorithm, signature]

    def der(self):
        return sequence(*self.parts())


def long_form(tag, content):
    """A length of four bytes, whatever it is."""
    return bytes([tag, 0x84]) + len(content).to_bytes(4, "big") + content


def endless(tag, content):
    return bytes([tag, 0x80]) + content + b"\0\0"


class Corpus:
    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.key, self.ca = Key("subject"), Key("authority")
        self.rows = []

    def file(self, name, content, reads="yes", sign=0, emails=ADDRESS, says="-", openssl="yes"):
        if reads == "no":
            sign, emails = 3, "-"
        self.directory.joinpath(name + ".der").write_bytes(content)
        self.rows.append("\t".join([name, reads, str(sign), emails or "-", says, openssl]))

    def case(self, name, *, reads="yes", sign=0, emails=ADDRESS, says="-", openssl="yes", **changes):
        content = Parts(self.key, self.ca, **changes).der()
        self.file(name, content, reads, sign, emails, says, openssl)

    def write(self):
        self.directory.joinpath("key.der").write_bytes(self.key.private())
        header = "name\treads\tsign\temails\tsays\topenssl"
        self.directory.joinpath("expected.tsv").write_text("\n".join([header, *self.rows]) + "\n")


def good(corpus):
    corpus.case("good")
    corpus.case("good-without-extensions", extensions=None, emails="", says="no e-mail address")
    corpus.case("good-empty-list-of-extensions", extensions=[], emails="", says="no e-mail address", openssl="any")


def alternative_names(corpus):
    old = san(email())
    umlaut = email(b"b\xfchler@example.com")
    unread = "an entry of its subject alternative name cannot be read"

    def case(name, *entries, **more):
        corpus.case("san-" + name, extensions=replaced(old, san(*entries)), **more)

    case("email-beside-latin1", umlaut, email(), says=unread)
    case("latin1-alone", umlaut, emails="", says="no e-mail address")
    case("utf8-domain", email("a@bühler.example"), email(), says=unread)
    case("punycode-domain", email("a@xn--bhler-kva.example"), emails="a@xn--bhler-kva.example")
    case("two-emails", email("b@example.com"), email(), emails="b@example.com " + ADDRESS)
    case("email-twice", email(), email())
    case("email-without-at", email("integration"), email(), says=unread)
    case("email-empty", email(""), email(), says=unread)
    case("email-with-newline", email("a@b\nc"), email(), says=unread)
    case("email-constructed", tlv(0xA1, tlv(0x16, b"a@b.c")), email(), says=unread, openssl="any")
    case("uri", tlv(0x86, b"https://example.com/?a=b"), email())
    case("uri-latin1", tlv(0x86, b"https://example.com/\xfc"), email(), says=unread)
    case("dns-latin1", tlv(0x82, b"b\xfchler.example"), email(), says=unread)
    case("dns-wildcard", tlv(0x82, b"*.example.com"), email())
    case("x400", tlv(0xA3, sequence(tlv(0x61, tlv(0x13, b"DE")))), email())
    case("x400-odd", tlv(0xA3, b"\x04\x01"), email(), openssl="any")
    case("edi-party", tlv(0xA5, tlv(0xA1, utf8("x"))), email())
    case("unknown-entry", tlv(0x89, b"x"), email(), openssl="any")
    case("unknown-built-entry", tlv(0xAB, utf8("x")), email(), openssl="any")
    case("upn", other_name("1.3.6.1.4.1.311.20.2.3", utf8("a@corp.example")), email())
    case("upn-alone", other_name("1.3.6.1.4.1.311.20.2.3", utf8("a@corp.example")), emails="", says="no e-mail address")
    case("smtp-utf8-mailbox", other_name("1.3.6.1.5.5.7.8.9", utf8("bühler@example.com")), email())
    case("other-name-number", other_name("1.2.3.4", integer(7)), email())
    case("other-name-without-value", tlv(0xA0, oid("1.2.3.4")), email(), says=unread, openssl="any")
    case("directory-name", tlv(0xA4, name(attribute(CN, utf8("x")))), email())
    case("directory-name-broken", tlv(0xA4, sequence(utf8("x"))), email(), says=unread, openssl="any")
    case("ip", tlv(0x87, bytes([192, 0, 2, 1])), tlv(0x87, bytes(16)), email())
    case("ip-of-five-bytes", tlv(0x87, bytes(5)), email(), says=unread)
    case("registered-id", tlv(0x88, b"\x2a\x03\x04"), email())
    case("long-registered-id", tlv(0x88, LONG_OID[2:]), email())
    case("empty", emails="", says="no e-mail address", openssl="any")
    case("of-2000-entries", *[tlv(0x82, b"h%d.example.com" % n) for n in range(2000)], email())
    case("truncated", email(), b"\x82\x7fx", says=unread, openssl="any")
    corpus.case("san-critical", extensions=replaced(old, san(email(), critical=TRUE)))
    twice = [san(tlv(0x82, b"a.example")), old]
    corpus.case("san-twice", extensions=replaced(old, *twice), says="its extension 2.5.29.17 occurs twice")
    both = replaced(old, san(email("b@example.com")), old)
    corpus.case("san-twice-with-emails", extensions=both, emails="b@example.com " + ADDRESS, says="occurs twice")
    broken = extension("2.5.29.17", utf8("x"))
    corpus.case("san-not-a-sequence", extensions=replaced(old, broken), emails="", says=unread, openssl="any")
    no_octets = extension("2.5.29.17", email(), tag=3)
    text = "its extension 2.5.29.17 has no octet string"
    corpus.case("san-no-octet-string", extensions=replaced(old, no_octets), emails="", says=text, openssl="no")


def serials(corpus):
    corpus.case("serial-of-20-bytes", serial=integer(int.from_bytes(b"\x7f" + bytes(19), "big")))
    corpus.case("serial-of-40-bytes", serial=integer(int.from_bytes(b"\x7f" * 40, "big")), says="40 bytes")
    corpus.case("serial-of-200-bytes", serial=integer(int.from_bytes(b"\x7f" * 200, "big")), says="200 bytes")
    corpus.case("serial-with-a-sign-byte", serial=integer(0xF1234567))
    corpus.case("serial-negative", serial=integer(-0x1234), says="its serial number is negative")
    corpus.case("serial-minus-128", serial=tlv(2, b"\x80"), says="its serial number is negative")
    corpus.case("serial-zero", serial=integer(0), says="its serial number is 0")
    corpus.case("serial-with-leading-zeros", serial=tlv(2, b"\0\0\0\x12"), openssl="any")
    corpus.case("serial-without-a-value", serial=tlv(2), reads="no", says="its serial number cannot be read", openssl="no")


def versions(corpus):
    v1 = "it is an X.509 certificate of version 1"
    corpus.case("version-1", version=b"", extensions=None, emails="", says=v1)
    corpus.case("version-1-written-out", version=tlv(0xA0, integer(0)), extensions=None, emails="", says=v1)
    corpus.case("version-1-with-extensions", version=b"", says=v1)
    corpus.case("version-2", version=tlv(0xA0, integer(1)), extensions=None, emails="", says="of version 2")
    corpus.case("version-9", version=tlv(0xA0, integer(8)), says="its version of X.509 is unknown", openssl="any")
    corpus.case("version-text", version=tlv(0xA0, utf8("3")), reads="no", says="its version cannot be read", openssl="no")


def times(corpus):
    odd = "a time of its validity is not in the form of RFC 5280"

    def utc(text):
        return tlv(0x17, text)

    def general(text):
        return tlv(0x18, text)

    corpus.case("time-with-fraction", end=general(b"21190101000000.5Z"), says=odd)
    corpus.case("time-with-fraction-of-zero", begin=general(b"20200101000000.000Z"), says=odd)
    corpus.case("time-general-before-2050", begin=general(b"20200101000000Z"), says=odd)
    corpus.case("time-in-1949", begin=general(b"19491231235959Z"))
    corpus.case("time-in-1900", begin=general(b"19000101000000Z"))
    corpus.case("time-in-the-year-0", begin=general(b"00000101000000Z"), openssl="any")
    corpus.case("time-in-1950", begin=utc(b"500101000000Z"))
    corpus.case("time-in-1969", begin=utc(b"691231235959Z"))
    corpus.case("time-at-the-end-of-9999", end=general(b"99991231235959Z"))
    corpus.case("time-without-seconds", begin=utc(b"2001010000Z"), says=odd, openssl="any")
    corpus.case("time-with-offset", begin=utc(b"200101000000+0130"), says=odd, openssl="any")
    corpus.case("time-with-offset-back", end=general(b"21190101000000-0800"), says=odd, openssl="any")
    corpus.case("time-over", end=utc(b"210101000000Z"), sign=5, says="the certificate expired on 2021-01-01")
    corpus.case("time-over-before-1970", begin=utc(b"500101000000Z"), end=utc(b"600101000000Z"), sign=5, says="expired on")
    corpus.case("time-to-come", begin=general(b"21180101000000Z"), sign=5, says="not valid before 2118")
    corpus.case("time-end-before-begin", end=utc(b"190101000000Z"), sign=5, says="expired on")
    for name, begin in [
        ("without-zone", utc(b"200101000000")),
        ("in-month-13", utc(b"201301000000Z")),
        ("on-february-30", utc(b"200230000000Z")),
        ("in-hour-24", utc(b"200101240000Z")),
        ("in-letters", utc(b"january 2020Z")),
        ("empty", utc(b"")),
        ("of-another-type", utf8("200101000000Z")),
    ]:
        openssl = "no" if name == "of-another-type" else "any"
        corpus.case("time-" + name, begin=begin, reads="no", says="its notBefore cannot be read", openssl=openssl)


def flags(corpus):
    odd = "a flag of its extensions is not encoded in DER"
    one = b"\x01"
    corpus.case("flag-critical-01", extensions=replaced(constraints(), constraints(critical=one)), says=odd)
    corpus.case("flag-not-critical-written-out", extensions=replaced(constraints(), constraints(critical=b"\0")), says=odd)
    corpus.case(
        "flag-critical-of-two-bytes", extensions=replaced(constraints(), constraints(critical=b"\0\1")), says=odd, openssl="no"
    )
    ca = dict(sign=5, says="the certificate is a CA's")
    corpus.case("flag-ca", extensions=replaced(constraints(), constraints(tlv(1, TRUE))), **ca)
    corpus.case("flag-ca-01", extensions=replaced(constraints(), constraints(tlv(1, one))), **ca)
    corpus.case("flag-ca-false-written-out", extensions=replaced(constraints(), constraints(tlv(1, b"\0"))))
    two = constraints(tlv(1, b"\0\0"))
    corpus.case(
        "flag-ca-of-two-bytes", extensions=replaced(constraints(), two), reads="no", says="its basic constraints", openssl="any"
    )


def keys(corpus):
    key = corpus.key
    rsa, pss = "1.2.840.113549.1.1.1", "1.2.840.113549.1.1.10"
    marked = "its key is only for RSASSA-PSS"
    corpus.case("key-pss", key_algorithm=sequence(oid(pss)), says=marked)
    sha256 = sequence(oid("2.16.840.1.101.3.4.2.1"), NULL)
    mgf = sequence(oid("1.2.840.113549.1.1.8"), sha256)
    parameters = sequence(tlv(0xA0, sha256), tlv(0xA1, mgf), tlv(0xA2, integer(32)))
    corpus.case("key-pss-with-parameters", key_algorithm=sequence(oid(pss), parameters), says=marked)
    corpus.case("key-without-null", key_algorithm=sequence(oid(rsa)))
    not_rsa = dict(reads="no", says="not RSA", openssl="any")
    corpus.case("key-oaep", key_algorithm=sequence(oid("1.2.840.113549.1.1.7"), NULL), **not_rsa)
    curve = sequence(oid("1.2.840.10045.2.1"), oid("1.2.840.10045.3.1.7"))
    corpus.case("key-ec", key_algorithm=curve, key=bits(b"\x04" + bytes(64)), **not_rsa)
    corpus.case("key-ed25519", key_algorithm=sequence(oid("1.3.101.112")), key=bits(bytes(32)), **not_rsa)
    modulus = key.n.to_bytes(256, "big")

    def numbers(*parts):
        return bits(sequence(*parts))

    negative = numbers(tlv(2, modulus), integer(key.e))
    corpus.case("key-modulus-without-sign-byte", key=negative, says="its modulus is written as a negative number", openssl="any")
    corpus.case("key-modulus-with-leading-zeros", key=numbers(tlv(2, b"\0\0\0" + modulus), integer(key.e)), openssl="any")
    broken = dict(reads="no", says="its RSA key cannot be read", openssl="any")
    corpus.case("key-with-a-third-number", key=numbers(integer(key.n), integer(key.e), integer(1)), **broken)
    corpus.case("key-with-bytes-behind", key=bits(key.public() + b"\0"), **broken)
    corpus.case("key-with-unused-bits", key=bits(key.public(), 4), **broken)
    corpus.case("key-of-text", key=bits(b"key"), **broken)
    short = Key("short", 1024)
    corpus.case("key-of-1024-bits", key=bits(short.public()), sign=3, says="1024 bits, fewer than 2048")


def encodings(corpus):
    ber = "it is not encoded in DER"
    parts = Parts(corpus.key, corpus.ca).parts()
    body = parts[0]
    plain = sequence(*parts)
    whole = b"".join(parts)
    corpus.file("ber-outer-length", long_form(0x30, whole), says=ber)
    corpus.file("ber-outer-endless", endless(0x30, whole), says=ber)
    fields = b"".join(Parts(corpus.key, corpus.ca).fields())
    for name, ber_body in [("ber-body-length", long_form(0x30, fields)), ("ber-body-endless", endless(0x30, fields))]:
        corpus.file(name, sequence(ber_body, SHA256_RSA, bits(corpus.ca.sign(ber_body))), says=ber)
    corpus.case("ber-subject", subject=endless(0x30, tlv(0x31, attribute(CN, utf8("corpus")))), says=ber)
    corpus.case("ber-serial", serial=long_form(2, b"\x12\x34"), says=ber)
    usage = extension("2.5.29.37", endless(0x30, CLIENT_AUTH))
    corpus.case("ber-extended-key-usage", extensions=replaced(GOOD[2], usage))
    built = extension("2.5.29.14", tlv(4, b"\x04\x02id"), tag=0x24)
    corpus.case("ber-built-octet-string", extensions=plus(built), says="has no octet string", openssl="any")
    built = extension("2.5.29.37", tlv(4, sequence(CLIENT_AUTH)), tag=0x24)
    corpus.case(
        "ber-built-octet-string-in-a-rule",
        extensions=replaced(GOOD[2], built),
        reads="no",
        says="its extended key usage cannot be read",
        openssl="any",
    )
    for name, padding in [
        ("newline", b"\n"),
        ("crlf", b"\r\n"),
        ("zeros", bytes(700)),
        ("ff", b"\xff" * 64),
        ("spaces", b"   \t"),
    ]:
        corpus.file("behind-" + name, plain + padding)
    corpus.file("behind-text", plain + b"hello", reads="no", says="5 other bytes follow it")
    corpus.file("behind-another-certificate", plain + plain, reads="no", says="other bytes follow it")
    corpus.file("inside-a-fourth-part", sequence(*parts, NULL), reads="no", openssl="no")
    corpus.case("inside-a-field-behind", more=NULL, reads="no", says="more follows", openssl="no")
    corpus.file("truncated", plain[:-20], reads="no", says="-", openssl="no")
    corpus.file("truncated-body", sequence(body), reads="no", says="-", openssl="no")
    corpus.file("text", b"hello", reads="no", says="not a certificate in a known form", openssl="no")


def names(corpus):
    def subject(name_, *attributes, **more):
        corpus.case("subject-" + name_, subject=name(*attributes), **more)

    utf16 = "Müller".encode("utf-16-be")
    subject("empty")
    subject("t61", attribute(CN, tlv(0x14, b"M\xfcller")), says="CN=Müller")
    subject("bmp", attribute(CN, tlv(0x1E, utf16)), says="CN=Müller")
    subject("bmp-of-odd-length", attribute(CN, tlv(0x1E, utf16 + b"x")), openssl="no")
    subject("universal", attribute(CN, tlv(0x1C, "Müller".encode("utf-32-be"))), says="CN=Müller")
    subject("utf8-broken", attribute(CN, tlv(0x0C, b"M\xfcller")), openssl="any")
    subject("printable-with-at", attribute(CN, tlv(0x13, b"a@b")))
    subject("of-another-string", attribute(CN, tlv(0x1B, b"x")), openssl="any")
    subject("value-of-a-sequence", attribute(CN, sequence(utf8("x"))), openssl="any")
    subject("long-oid", attribute(LONG_OID, utf8("x")))
    subject("two-in-one-set", attribute(CN, utf8("a")) + attribute("2.5.4.10", utf8("b")))
    subject("escape-sequence", attribute(CN, utf8("\x1b[2Jx")), says="CN=")
    subject("empty-value", attribute(CN, utf8("")), openssl="any")
    corpus.case("subject-empty-set", subject=sequence(tlv(0x31)), openssl="any")
    text = "its subject cannot be read"
    corpus.case("subject-not-a-name", subject=utf8("corpus"), reads="no", says=text, openssl="no")
    corpus.case("subject-of-plain-attributes", subject=sequence(attribute(CN, utf8("x"))), reads="no", says=text, openssl="no")
    corpus.case("issuer-empty", issuer=sequence())
    corpus.case("issuer-is-subject", issuer=Parts.subject, says="the certificate is self-signed")
    no_san = without(GOOD[3])
    for kind, tag, codec in [
        ("ia5", 0x16, "ascii"),
        ("utf8", 0x0C, "utf-8"),
        ("printable", 0x13, "ascii"),
        ("t61", 0x14, "latin-1"),
        ("bmp", 0x1E, "utf-16-be"),
        ("universal", 0x1C, "utf-32-be"),
        ("visible", 0x1A, "ascii"),
    ]:
        value = attribute(EMAIL, tlv(tag, ADDRESS.encode(codec)))
        openssl = "any" if kind == "visible" else "yes"
        subject("email-" + kind, attribute(CN, utf8("x")), value, extensions=no_san, openssl=openssl)
    beside = attribute(EMAIL, utf8("b@example.com"))
    subject("email-beside-another-in-san", beside, emails=ADDRESS + " b@example.com")
    same = attribute(EMAIL, utf8(ADDRESS))
    subject("email-is-that-of-san", same)
    odd = dict(extensions=no_san, emails="", says="no e-mail address", openssl="any")
    subject("email-latin1-in-utf8", attribute(EMAIL, tlv(0x0C, b"b\xfchler@example.com")), **odd)
    subject("email-without-at", attribute(EMAIL, utf8("nobody")), **odd)
    subject("email-in-cn", attribute(CN, utf8(ADDRESS)), **odd)


def other_extensions(corpus):
    unknown = "is critical and unknown here"
    corpus.case("extension-unknown", extensions=plus(extension("1.2.3.4", b"\x01")))
    corpus.case("extension-unknown-critical", extensions=plus(extension("1.2.3.4", b"\x01", TRUE)), says=unknown)
    poison = extension("1.3.6.1.4.1.11129.2.4.3", NULL, TRUE)
    corpus.case("extension-precertificate", extensions=plus(poison), says=unknown)
    corpus.case("extension-long-oid", extensions=plus(extension(LONG_OID, b"x")))
    garbage = [extension("2.5.29.%d" % number, b"\x04\x7f") for number in (14, 30, 31, 32, 35, 36, 54)]
    corpus.case("extensions-of-garbage", extensions=plus(*garbage), openssl="any")
    twice = extension("1.2.3.4", b"\x01")
    corpus.case("extension-twice", extensions=plus(twice, twice), says="its extension 1.2.3.4 occurs twice")
    identifier = extension("2.5.29.14", tlv(4, b"id"))
    corpus.case("extension-identifier-twice", extensions=plus(identifier, identifier), says="2.5.29.14 occurs twice")
    for name_, part, text in [
        ("key-usage", GOOD[1], "key usage"),
        ("extended-key-usage", GOOD[2], "extended key usage"),
        ("basic-constraints", GOOD[0], "basic constraints"),
    ]:
        text = "it has more than one %s extension" % text
        corpus.case("extension-%s-twice" % name_, extensions=plus(part), reads="no", says=text)
    text = "its list of extensions cannot be read"
    corpus.case("extensions-not-in-a-sequence", list=tlv(0xA3, *GOOD), reads="no", says=text, openssl="no")
    corpus.case("extensions-not-explicit", list=tlv(0xA3, utf8("x")), reads="no", says=text, openssl="no")
    no_value = sequence(oid("1.2.3.4"))
    corpus.case("extension-without-value", extensions=plus(no_value), reads="no", says=text, openssl="no")
    corpus.case("unique-identifiers", unique_ids=tlv(0x81, b"\0id") + tlv(0x82, b"\0id"))
    corpus.case("signature-of-md5", algorithm=sequence(oid("1.2.840.113549.1.1.4"), NULL))
    corpus.case("signature-unknown", algorithm=sequence(oid("1.2.3.4")), outer_algorithm=sequence(oid("1.2.3.4")))
    corpus.case("signature-of-two-algorithms", outer_algorithm=sequence(oid("1.2.840.113549.1.1.12"), NULL))
    corpus.case("signature-empty", signature=bits(b""))


def usages(corpus):
    def usage(name_, value, **more):
        corpus.case("key-usage-" + name_, extensions=replaced(GOOD[1], key_usage(value)), **more)

    usage("with-odd-unused-bits", bits(b"\xff", 7))
    usage("with-no-unused-bits", bits(b"\x80"))
    usage("of-nine-bits", bits(b"\x80\x80", 7))
    usage("of-four-bytes", bits(b"\x80\0\0\1"))
    refused = "key usage lacks digitalSignature"
    usage("empty", bits(b""), sign=5, says=refused)
    usage("of-encryption", bits(b"\x20", 5), sign=5, says=refused)
    usage("masked-by-unused-bits", bits(b"\xff", 7)[:-1] + b"\x7f", sign=5, says=refused)
    broken = dict(reads="no", says="its key usage cannot be read", openssl="any")
    usage("with-eight-unused-bits", bits(b"\x80", 8), **broken)
    usage("with-unused-bits-and-no-byte", bits(b"", 7), **broken)
    usage("of-a-number", integer(0x80), **broken)
    usage("with-bytes-behind", bits(b"\x80", 7) + NULL, **broken)
    corpus.case("key-usage-not-critical", extensions=replaced(GOOD[1], key_usage(critical=None)))
    corpus.case("key-usage-missing", extensions=without(GOOD[1]))

    def purpose(name_, *entries, **more):
        corpus.case("purpose-" + name_, extensions=replaced(GOOD[2], extended(*entries)), **more)

    purpose("empty", sign=5, says="extended key usage is empty", openssl="any")
    purpose("server", oid("1.3.6.1.5.5.7.3.1"), sign=5, says="the certificate is for serverAuth")
    purpose("any", oid("2.5.29.37.0"), sign=5, says="the certificate is for 2.5.29.37.0")
    purpose("long-oid-alone", LONG_OID, sign=5, says="the certificate is for ")
    purpose("long-oid-and-client", LONG_OID, CLIENT_AUTH)
    purpose("client-twice", CLIENT_AUTH, CLIENT_AUTH)
    broken = dict(reads="no", says="its extended key usage cannot be read", openssl="any")
    purpose("of-text", CLIENT_AUTH, utf8("clientAuth"), **broken)
    purpose("of-an-empty-oid", CLIENT_AUTH, tlv(6), **broken)
    behind = extension("2.5.29.37", sequence(CLIENT_AUTH) + NULL)
    corpus.case("purpose-with-bytes-behind", extensions=replaced(GOOD[2], behind), **broken)
    missing = "the certificate has no extended key usage"
    corpus.case("purpose-missing", extensions=without(GOOD[2]), says=missing)
    critical = extended(CLIENT_AUTH, critical=TRUE)
    corpus.case("purpose-critical", extensions=replaced(GOOD[2], critical))

    def limits(name_, value, **more):
        corpus.case("constraints-" + name_, extensions=replaced(GOOD[0], constraints(value)), **more)

    limits("with-a-length-for-nobody", integer(0))
    limits("with-a-huge-length", integer(2**80), openssl="any")
    broken = dict(reads="no", says="its basic constraints cannot be read", openssl="any")
    limits("of-text", utf8("CA"), **broken)
    limits("with-more-behind", tlv(1, TRUE) + integer(0) + NULL, **broken)
    corpus.case("constraints-missing", extensions=without(GOOD[0]))


def main():
    directory = pathlib.Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    corpus = Corpus(directory)
    for add in [good, alternative_names, serials, versions, times, flags, keys, encodings, names, other_extensions, usages]:
        add(corpus)
    corpus.write()


if __name__ == "__main__":
    main()
