//! The kind of a module's file, from its first bytes: the loader's message often names another cause, or none.
//!
//! PURE. The formats are those of elf(5). Deliberately absent: sections, symbols and everything else that the loader reads.

/// The number of bytes that [`FileKind::of`] needs.
pub(super) const HEAD: usize = 1 << 16;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    Elf(Elf),
    /// A linker script, with the library that it names.
    LinkerScript(Option<String>),
    /// Another format, by name.
    Other(&'static str),
}

/// The parts of an ELF header that decide whether this host can load a library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Elf {
    /// Its word size in bits.
    pub(super) bits: u8,
    pub(super) little_endian: bool,
    /// `e_type`: 1 object file, 2 program, 3 shared library or position-independent program.
    pub(super) kind: u16,
    /// `e_machine`.
    pub(super) machine: u16,
    /// Whether it names a loader, as a program does and a library does not.
    pub(super) is_program: bool,
    /// The minimum length of the file for all its segments.
    pub(super) length: u64,
}

impl FileKind {
    /// Returns the kind of a file, from its first [`HEAD`] bytes.
    pub(super) fn of(head: &[u8]) -> Self {
        if let Some(elf) = Elf::parse(head) {
            return Self::Elf(elf);
        }
        let known: [(&[u8], &str); 8] = [
            (b"!<arch>\n", "an archive of object files (a static library)"),
            (b"MZ", "a Windows library"),
            (b"\xcf\xfa\xed\xfe", "a macOS library"),
            (b"\xca\xfe\xba\xbe", "a macOS library"),
            (b"\x1f\x8b", "compressed (gzip)"),
            (b"\xfd7zXZ", "compressed (xz)"),
            (b"PK\x03\x04", "a ZIP file"),
            (b"\x7fELF", "a damaged ELF file"),
        ];
        if head.is_empty() {
            return Self::Other("an empty file");
        }
        if let Some((_, name)) = known.iter().find(|(magic, _)| head.starts_with(magic)) {
            return Self::Other(name);
        }
        match std::str::from_utf8(&head[..head.len().min(4096)]) {
            Ok(text) if text.contains("INPUT") || text.contains("GROUP") => Self::LinkerScript(named_library(text)),
            Ok(text) if text.starts_with("version https://git-lfs") => Self::Other("a Git LFS pointer"),
            Ok(_) => Self::Other("a text"),
            Err(_) => Self::Other("a file of another format"),
        }
    }
}

impl Elf {
    /// `None` for a file with an incomplete header.
    fn parse(head: &[u8]) -> Option<Self> {
        let rest = head.strip_prefix(b"\x7fELF")?;
        let (bits, little_endian) = match rest {
            [1, order, ..] => (32, *order == 1),
            [2, order, ..] => (64, *order == 1),
            _ => return None,
        };
        let file = NumberReader { bytes: head, little_endian };
        let wide = bits == 64;
        let (kind, machine) = (file.u16(16)?, file.u16(18)?);
        let table = if wide { file.u64(32)? } else { file.u32(28)?.into() };
        let (size, count) = if wide { (file.u16(54)?, file.u16(56)?) } else { (file.u16(42)?, file.u16(44)?) };
        let mut elf = Self { bits, little_endian, kind, machine, is_program: false, length: 0 };
        for number in 0..count {
            let at = table.checked_add(u64::from(number) * u64::from(size)).and_then(|at| usize::try_from(at).ok())?;
            // Headers after the bytes that were read are ignored.
            let Some(segment) = file.u32(at) else { break };
            let (offset, length) = if wide {
                (file.u64(at.checked_add(8)?), file.u64(at.checked_add(32)?))
            } else {
                (file.u32(at.checked_add(4)?).map(u64::from), file.u32(at.checked_add(16)?).map(u64::from))
            };
            const LOAD: u32 = 1;
            const INTERPRETER: u32 = 3;
            elf.is_program |= segment == INTERPRETER;
            if let (LOAD, Some(offset), Some(length)) = (segment, offset, length) {
                elf.length = elf.length.max(offset.saturating_add(length));
            }
        }
        Some(elf)
    }

    /// The name of an architecture by `e_machine`, word size and byte order.
    pub(super) fn architecture(&self) -> String {
        let name = match (self.machine, self.bits, self.little_endian) {
            (3, ..) => "x86 (32-bit)",
            (62, 64, _) => "x86-64",
            (62, ..) => "x86-64 (x32)",
            (40, ..) => "ARM (32-bit)",
            (183, ..) => "ARM64",
            (243, 64, _) => "RISC-V (64-bit)",
            (243, ..) => "RISC-V (32-bit)",
            (21, _, true) => "PowerPC64 (little-endian)",
            (21, ..) => "PowerPC64 (big-endian)",
            (20, ..) => "PowerPC",
            (22, ..) => "s390x",
            (8, ..) => "MIPS",
            (258, ..) => "LoongArch",
            (machine, bits, _) => return format!("ELF machine {machine}, {bits}-bit"),
        };
        name.into()
    }
}

/// The first library that a linker script names.
fn named_library(text: &str) -> Option<String> {
    let words = text.split(|c: char| c.is_whitespace() || "()".contains(c));
    words.into_iter().find(|word| word.contains(".so")).map(str::to_owned)
}

/// Numbers at positions of a file.
struct NumberReader<'a> {
    bytes: &'a [u8],
    little_endian: bool,
}

impl NumberReader<'_> {
    fn u16(&self, at: usize) -> Option<u16> {
        self.at(at, u16::from_le_bytes, u16::from_be_bytes)
    }

    fn u32(&self, at: usize) -> Option<u32> {
        self.at(at, u32::from_le_bytes, u32::from_be_bytes)
    }

    fn u64(&self, at: usize) -> Option<u64> {
        self.at(at, u64::from_le_bytes, u64::from_be_bytes)
    }

    fn at<const N: usize, T>(&self, at: usize, little: fn([u8; N]) -> T, big: fn([u8; N]) -> T) -> Option<T> {
        let bytes = *self.bytes.get(at..)?.first_chunk::<N>()?;
        Some(if self.little_endian { little(bytes) } else { big(bytes) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn this_program_is_a_whole_elf_file() {
        let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let FileKind::Elf(elf) = FileKind::of(&file) else { panic!("not ELF") };
        assert!(elf.is_program && elf.length > 0 && elf.length <= file.len() as u64, "{elf:?}");
    }

    #[test]
    fn a_linker_script_names_its_library() {
        for text in ["/* GNU ld script */\nINPUT(libx.so.1)\n", "GROUP ( /lib/libx.so.1 AS_NEEDED ( libm.so.6 ) )"] {
            let FileKind::LinkerScript(Some(library)) = FileKind::of(text.as_bytes()) else { panic!("{text}") };
            assert!(library.ends_with("libx.so.1"), "{library}");
        }
        assert_eq!(FileKind::of(b"no library"), FileKind::Other("a text"));
    }

    fn put(file: &mut [u8], at: usize, little_endian: bool, number: u64, size: usize) {
        let bytes = if little_endian {
            number.to_le_bytes()[..size].to_vec()
        } else {
            number.to_be_bytes()[8 - size..].to_vec()
        };
        file[at..at + size].copy_from_slice(&bytes);
    }

    /// An ELF file with a header for each segment: its type, offset and length.
    fn file(wide: bool, little_endian: bool, segments: &[(u64, u64, u64)]) -> Vec<u8> {
        let (table, size) = if wide { (64, 56) } else { (52, 32) };
        let mut file = vec![0; table + size * segments.len()];
        file[..6].copy_from_slice(&[
            0x7f,
            b'E',
            b'L',
            b'F',
            if wide { 2 } else { 1 },
            if little_endian { 1 } else { 2 },
        ]);
        put(&mut file, 16, little_endian, 3, 2);
        put(&mut file, 18, little_endian, 62, 2);
        if wide {
            put(&mut file, 32, little_endian, table as u64, 8)
        } else {
            put(&mut file, 28, little_endian, table as u64, 4)
        }
        let (at_size, at_count) = if wide { (54, 56) } else { (42, 44) };
        put(&mut file, at_size, little_endian, size as u64, 2);
        put(&mut file, at_count, little_endian, segments.len() as u64, 2);
        for (number, (kind, offset, length)) in segments.iter().enumerate() {
            let at = table + size * number;
            put(&mut file, at, little_endian, *kind, 4);
            let (at_offset, at_length, width) = if wide { (at + 8, at + 32, 8) } else { (at + 4, at + 16, 4) };
            put(&mut file, at_offset, little_endian, *offset, width);
            put(&mut file, at_length, little_endian, *length, width);
        }
        file
    }

    #[test]
    fn each_form_of_elf_is_read_with_its_segments() {
        for (wide, little_endian) in [(true, true), (true, false), (false, true), (false, false)] {
            let segments = [(1, 0, 100), (3, 5000, 20), (1, 4096, 300), (2, 9000, 9000)];
            let wanted = Elf {
                bits: if wide { 64 } else { 32 },
                little_endian,
                kind: 3,
                machine: 62,
                is_program: true,
                length: 4396,
            };
            let whole = file(wide, little_endian, &segments);
            assert_eq!(FileKind::of(&whole), FileKind::Elf(wanted), "{wide} {little_endian}");
            let library = Elf { is_program: false, length: 100, ..wanted };
            assert_eq!(FileKind::of(&file(wide, little_endian, &segments[..1])), FileKind::Elf(library));
            // Only the first headers are in the bytes that were read.
            let cut = whole.len() - if wide { 56 } else { 32 } * 3;
            assert_eq!(FileKind::of(&whole[..cut]), FileKind::Elf(library));
            for length in [5, 16, 40] {
                assert_eq!(FileKind::of(&whole[..length]), FileKind::Other("a damaged ELF file"), "{length}");
            }
        }
        let mut class = file(true, true, &[]);
        class[4] = 3;
        assert_eq!(FileKind::of(&class), FileKind::Other("a damaged ELF file"));
        let mut far = file(true, true, &[(1, 1, 1)]);
        put(&mut far, 32, true, u64::MAX, 8);
        assert!(matches!(FileKind::of(&far), FileKind::Elf(Elf { length: 0, .. }) | FileKind::Other(_)));
    }

    #[test]
    fn each_architecture_has_its_name() {
        let name = |machine, bits, little_endian| {
            Elf { bits, little_endian, kind: 3, machine, is_program: false, length: 0 }.architecture()
        };
        for (machine, bits, little_endian, wanted) in [
            (3, 32, true, "x86 (32-bit)"),
            (62, 64, true, "x86-64"),
            (62, 32, true, "x86-64 (x32)"),
            (40, 32, true, "ARM (32-bit)"),
            (183, 64, true, "ARM64"),
            (243, 64, true, "RISC-V (64-bit)"),
            (243, 32, true, "RISC-V (32-bit)"),
            (21, 64, true, "PowerPC64 (little-endian)"),
            (21, 64, false, "PowerPC64 (big-endian)"),
            (20, 32, false, "PowerPC"),
            (22, 64, false, "s390x"),
            (8, 32, false, "MIPS"),
            (258, 64, true, "LoongArch"),
            (999, 64, true, "ELF machine 999, 64-bit"),
        ] {
            assert_eq!(name(machine, bits, little_endian), wanted);
        }
    }

    #[test]
    fn other_files_are_told_by_their_first_bytes() {
        for (head, wanted) in [
            (&b""[..], "an empty file"),
            (b"!<arch>\nx", "an archive of object files (a static library)"),
            (b"MZ\x90", "a Windows library"),
            (b"\xcf\xfa\xed\xfe", "a macOS library"),
            (b"\x1f\x8b\x08", "compressed (gzip)"),
            (b"\xfd7zXZ", "compressed (xz)"),
            (b"PK\x03\x04", "a ZIP file"),
            (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
            (b"\xff\xff", "a file of another format"),
        ] {
            assert_eq!(FileKind::of(head), FileKind::Other(wanted), "{head:?}");
        }
        let long = [&b"x".repeat(4096)[..], b"\xff"].concat();
        assert_eq!(FileKind::of(&long), FileKind::Other("a text"), "only the first bytes are looked at");
        assert_eq!(FileKind::of(b"INPUT(x)"), FileKind::LinkerScript(None));
        assert_eq!(FileKind::of(b"GROUP(x)"), FileKind::LinkerScript(None));
    }

    proptest! {
        #[test]
        fn never_panics(mut bytes: Vec<u8>, class in 0..4_u8) {
            let _ = FileKind::of(&bytes);
            bytes.splice(0..0, [0x7f, b'E', b'L', b'F', class, 1]);
            let _ = FileKind::of(&bytes);
        }
    }
}
