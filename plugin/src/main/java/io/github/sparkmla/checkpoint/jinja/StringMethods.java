package io.github.sparkmla.checkpoint.jinja;

import java.util.ArrayList;
import java.util.List;
import java.util.Set;

/** The methods of str. Positions and lengths count code points. */
final class StringMethods {
    private static final Set<String> KNOWN = Set.of(
            "capitalize",
            "center",
            "count",
            "endswith",
            "find",
            "format",
            "index",
            "isalnum",
            "isalpha",
            "isascii",
            "isdecimal",
            "isdigit",
            "islower",
            "isnumeric",
            "isspace",
            "isupper",
            "join",
            "ljust",
            "lower",
            "lstrip",
            "partition",
            "removeprefix",
            "removesuffix",
            "replace",
            "rfind",
            "rindex",
            "rjust",
            "rpartition",
            "rsplit",
            "rstrip",
            "split",
            "splitlines",
            "startswith",
            "strip",
            "swapcase",
            "title",
            "upper",
            "zfill");
    private static final Set<String> REFUSED = Set.of(
            "casefold",
            "encode",
            "expandtabs",
            "format_map",
            "isidentifier",
            "isprintable",
            "istitle",
            "maketrans",
            "translate");

    private final Values values;

    StringMethods(Values values) {
        this.values = values;
    }

    /** The method bound to the text, {@link Attributes#ABSENT} where str has none of this name. */
    Object bound(String text, String name) {
        if (REFUSED.contains(name)) {
            throw JinjaException.unsupported("str." + name);
        }
        return KNOWN.contains(name) ? (PyTypes.Callable) arguments -> call(text, name, arguments) : Attributes.ABSENT;
    }

    Object call(String text, String name, Arguments arguments) {
        values.limits.step(1 + text.length() / 64);
        return switch (name) {
            case "strip", "lstrip", "rstrip" -> strip(text, name, arguments);
            case "split", "rsplit" -> split(text, name, arguments);
            case "splitlines" -> {
                Object keep = Arguments.orDefault(arguments.bind(name, 0, "keepends")[0], false);
                yield list(Splitting.lines(text, integer(keep) != 0));
            }
            case "startswith", "endswith" -> affix(text, name, arguments);
            case "removeprefix" -> {
                String prefix = string(name, arguments.positionalOnly(name, 1, 1)[0]);
                yield text.startsWith(prefix) ? text.substring(prefix.length()) : text;
            }
            case "removesuffix" -> {
                String suffix = string(name, arguments.positionalOnly(name, 1, 1)[0]);
                yield text.endsWith(suffix) ? text.substring(0, text.length() - suffix.length()) : text;
            }
            case "partition", "rpartition" -> partition(text, name, arguments);
            case "replace" -> replace(text, arguments);
            case "join" -> join(text, arguments.positionalOnly(name, 1, 1)[0]);
            case "find", "rfind", "index", "rindex", "count" -> search(text, name, arguments);
            case "format" -> new BraceFormat(values, text, arguments).render();
            case "center", "ljust", "rjust", "zfill" -> pad(text, name, arguments);
            default -> {
                arguments.positionalOnly(name, 0, 0);
                yield name.startsWith("is") ? is(text, name) : changeCase(text, name);
            }
        };
    }

    private static String string(String method, Object value) {
        if (value instanceof String text) {
            return text;
        }
        throw JinjaException.error(method + "() argument must be str, not " + PyTypes.name(value));
    }

    private Object changeCase(String text, String name) {
        values.limits.allocate(text.length());
        return switch (name) {
            case "upper" -> Letters.upper(text);
            case "lower" -> Letters.lower(text);
            case "title" -> Letters.title(text);
            case "capitalize" -> Letters.capitalize(text);
            default -> Letters.swapcase(text);
        };
    }

    private static boolean is(String text, String name) {
        if (name.equals("isascii")) {
            return text.chars().allMatch(c -> c < 0x80);
        }
        if (name.equals("islower") || name.equals("isupper")) {
            return Letters.isAllCase(text, name.equals("isupper"));
        }
        return !text.isEmpty()
                && text.codePoints().allMatch(c -> switch (name) {
                    case "isspace" -> Text.isSpace(c);
                    case "isalpha" -> Letters.isAlpha(c);
                    case "isdecimal" -> Letters.isDecimal(c);
                    case "isdigit" -> Letters.isNumeric(c, false);
                    case "isnumeric" -> Letters.isNumeric(c, true);
                    default -> Letters.isAlpha(c) || Letters.isNumeric(c, false);
                });
    }

    private String strip(String text, String name, Arguments arguments) {
        Object chars = Arguments.orDefault(arguments.positionalOnly(name, 0, 1)[0], null);
        boolean left = !name.equals("rstrip");
        boolean right = !name.equals("lstrip");
        if (chars == null) {
            String cut = left ? Text.lstrip(text) : text;
            return right ? Text.rstrip(cut) : cut;
        }
        String set = string(name, chars);
        int start = 0;
        int end = text.length();
        while (left && start < end && set.indexOf(text.codePointAt(start)) >= 0) {
            start += Character.charCount(text.codePointAt(start));
        }
        while (right && end > start && set.indexOf(text.codePointBefore(end)) >= 0) {
            end -= Character.charCount(text.codePointBefore(end));
        }
        return text.substring(start, end);
    }

    private Object split(String text, String name, Arguments arguments) {
        Object[] bound = arguments.bind(name, 0, "sep", "maxsplit");
        Object separator = Arguments.orDefault(bound[0], null);
        long most = integer(Arguments.orDefault(bound[1], -1L));
        long limit = most < 0 ? Long.MAX_VALUE : most;
        if (separator == null) {
            return list(name.equals("split") ? Splitting.words(text, limit) : Splitting.wordsFromRight(text, limit));
        }
        String delimiter = string(name, separator);
        if (delimiter.isEmpty()) {
            throw JinjaException.error("empty separator");
        }
        return list(
                name.equals("split")
                        ? Splitting.parts(text, delimiter, limit)
                        : Splitting.partsFromRight(text, delimiter, limit));
    }

    private List<Object> list(List<String> parts) {
        values.limits.step(parts.size());
        values.limits.allocate(parts.size() * 8L);
        return new ArrayList<>(parts);
    }

    private static long integer(Object value) {
        if (Numbers.isInt(value)) {
            return Numbers.toLong(value);
        }
        throw JinjaException.error("'" + PyTypes.name(value) + "' object cannot be interpreted as an integer");
    }

    private boolean affix(String text, String name, Arguments arguments) {
        Object[] bound = arguments.positionalOnly(name, 1, 3);
        String part = section(text, bound[1], bound[2]);
        List<Object> affixes = bound[0] instanceof PyTypes.Tuple tuple ? tuple.items : List.of(string(name, bound[0]));
        boolean outside = part == null;
        return affixes.stream()
                .map(affix -> string(name, affix))
                .anyMatch(affix ->
                        !outside && (name.equals("startswith") ? part.startsWith(affix) : part.endsWith(affix)));
    }

    /** {@code text[start:end]} as find and its like read it; null where start lies behind the text. */
    private String section(String text, Object start, Object end) {
        boolean whole = isMissing(start) && isMissing(end);
        if (whole) {
            return text;
        }
        int length = Text.length(text);
        int from = isMissing(start) ? 0 : clip(integer(start), length, false);
        int to = isMissing(end) ? length : clip(integer(end), length, true);
        if (from > length || from > to) {
            return null;
        }
        return Text.substring(text, from, to);
    }

    private static boolean isMissing(Object bound) {
        return bound == Arguments.MISSING || bound == null;
    }

    private static int clip(long at, int length, boolean end) {
        long clipped = Math.max(0, at < 0 ? at + length : at);
        return (int) Math.min(clipped, end ? length : length + 1L);
    }

    private Object search(String text, String name, Arguments arguments) {
        Object[] bound = arguments.positionalOnly(name, 1, 3);
        String part = string(name, bound[0]);
        String section = section(text, bound[1], bound[2]);
        if (name.equals("count")) {
            return section == null ? 0L : count(section, part);
        }
        int at = section == null ? -1 : name.startsWith("r") ? section.lastIndexOf(part) : section.indexOf(part);
        if (at < 0) {
            if (name.endsWith("index")) {
                throw JinjaException.error("substring not found");
            }
            return -1L;
        }
        int before = isMissing(bound[1]) ? 0 : clip(integer(bound[1]), Text.length(text), false);
        return (long) before + section.codePointCount(0, at);
    }

    private static long count(String text, String part) {
        if (part.isEmpty()) {
            return Text.length(text) + 1L;
        }
        long count = 0;
        for (int at = text.indexOf(part); at >= 0; at = text.indexOf(part, at + part.length())) {
            count++;
        }
        return count;
    }

    private Object partition(String text, String name, Arguments arguments) {
        String separator = string(name, arguments.positionalOnly(name, 1, 1)[0]);
        if (separator.isEmpty()) {
            throw JinjaException.error("empty separator");
        }
        boolean right = name.startsWith("r");
        int at = right ? text.lastIndexOf(separator) : text.indexOf(separator);
        if (at < 0) {
            return right ? PyTypes.Tuple.of("", "", text) : PyTypes.Tuple.of(text, "", "");
        }
        return PyTypes.Tuple.of(text.substring(0, at), separator, text.substring(at + separator.length()));
    }

    private String replace(String text, Arguments arguments) {
        Object[] bound = arguments.positionalOnly("replace", 2, 3);
        String old = string("replace", bound[0]);
        String with = string("replace", bound[1]);
        long most = integer(Arguments.orDefault(bound[2], -1L));
        long left = most < 0 ? Long.MAX_VALUE : most;
        values.limits.allocate(text.length() + Math.min(left, count(text, old)) * with.length());
        StringBuilder out = new StringBuilder();
        int start = 0;
        if (old.isEmpty()) {
            while (left-- > 0) {
                out.append(with);
                if (start >= text.length()) {
                    return out.toString();
                }
                int next = text.offsetByCodePoints(start, 1);
                out.append(text, start, next);
                start = next;
            }
        } else {
            for (int at = text.indexOf(old); at >= 0 && left-- > 0; at = text.indexOf(old, start)) {
                out.append(text, start, at).append(with);
                start = at + old.length();
            }
        }
        return out.append(text.substring(start)).toString();
    }

    private String join(String separator, Object elements) {
        StringBuilder out = new StringBuilder();
        List<Object> parts = values.list(elements);
        for (int i = 0; i < parts.size(); i++) {
            if (!(parts.get(i) instanceof String part)) {
                throw JinjaException.error(
                        "sequence item " + i + ": expected str instance, " + PyTypes.name(parts.get(i)) + " found");
            }
            values.limits.allocate((long) part.length() + separator.length());
            out.append(i == 0 ? "" : separator).append(part);
        }
        values.limits.allocate(out.length());
        return out.toString();
    }

    private String pad(String text, String name, Arguments arguments) {
        Object[] bound = arguments.positionalOnly(name, 1, name.equals("zfill") ? 1 : 2);
        long missing = Math.max(0, integer(bound[0]) - Text.length(text));
        values.limits.allocate(text.length() + missing);
        int count = (int) missing;
        if (name.equals("zfill")) {
            boolean signed = text.startsWith("+") || text.startsWith("-");
            return signed ? text.charAt(0) + "0".repeat(count) + text.substring(1) : "0".repeat(count) + text;
        }
        Object given = Arguments.orDefault(bound[1], " ");
        if (!(given instanceof String fill) || Text.length(fill) != 1) {
            throw JinjaException.error("The fill character must be exactly one character long");
        }
        // As CPython does: the odd character goes to the left only where the width is odd.
        int before = switch (name) {
            case "center" -> count / 2 + (count & (int) integer(bound[0]) & 1);
            case "rjust" -> count;
            default -> 0;
        };
        return fill.repeat(before) + text + fill.repeat(count - before);
    }
}
