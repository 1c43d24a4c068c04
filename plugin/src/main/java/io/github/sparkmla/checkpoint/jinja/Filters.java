package io.github.sparkmla.checkpoint.jinja;

import java.math.BigDecimal;
import java.util.Set;

/** jinja2's filters on single values; those on sequences are in {@link SequenceFilters}. */
final class Filters {
    static final Set<String> NAMES = Set.of(
            "abs",
            "attr",
            "batch",
            "capitalize",
            "center",
            "count",
            "d",
            "default",
            "dictsort",
            "e",
            "escape",
            "filesizeformat",
            "first",
            "float",
            "forceescape",
            "format",
            "groupby",
            "indent",
            "int",
            "join",
            "last",
            "length",
            "list",
            "lower",
            "items",
            "map",
            "min",
            "max",
            "pprint",
            "random",
            "reject",
            "rejectattr",
            "replace",
            "reverse",
            "round",
            "safe",
            "select",
            "selectattr",
            "slice",
            "sort",
            "string",
            "striptags",
            "sum",
            "title",
            "trim",
            "truncate",
            "unique",
            "upper",
            "urlencode",
            "urlize",
            "wordcount",
            "wordwrap",
            "xmlattr",
            "tojson");

    private static final Set<String> REFUSED = Set.of("pprint", "random", "striptags", "urlize", "wordwrap", "xmlattr");

    /** Those that do with marked-safe text what they do with any other; the rest would have to escape. */
    private static final Set<String> MARKUP_SAFE =
            Set.of("default", "d", "string", "safe", "length", "count", "tojson", "e", "escape", "forceescape");

    private static final int DEFAULT_LEEWAY = 5;

    private final Values values;
    private final Attributes attributes;
    private final Operators operators;
    private final StringMethods strings;
    private final SequenceFilters sequences;

    Filters(Values values, Attributes attributes, Operators operators, Tests tests) {
        this.values = values;
        this.attributes = attributes;
        this.operators = operators;
        this.strings = new StringMethods(values);
        this.sequences = new SequenceFilters(values, attributes, operators, this, tests);
    }

    Object apply(String name, Object value, Arguments arguments) {
        if (!NAMES.contains(name)) {
            throw JinjaException.error("No filter named '" + name + "'.");
        }
        boolean markup = value instanceof PyTypes.Markup
                || arguments.positional().stream().anyMatch(PyTypes.Markup.class::isInstance);
        if (REFUSED.contains(name) || (markup && !MARKUP_SAFE.contains(name))) {
            throw JinjaException.unsupported("the filter '" + name + "'" + (markup ? " on text marked as safe" : ""));
        }
        return switch (name) {
            case "capitalize",
                    "lower",
                    "upper",
                    "title",
                    "trim",
                    "center",
                    "replace",
                    "indent",
                    "truncate",
                    "wordcount",
                    "format",
                    "urlencode" -> text(name, value, arguments);
            case "abs", "round", "int", "float", "filesizeformat" -> number(name, value, arguments);
            case "count", "length" -> {
                arguments.positionalOnly("len", 0, 0);
                yield values.length(value);
            }
            case "d", "default" -> {
                Object[] bound = arguments.bind(name, 0, "default_value", "boolean");
                boolean missing = value instanceof Undefined
                        || (values.truth(Arguments.orDefault(bound[1], false)) && !values.truth(value));
                yield missing ? Arguments.orDefault(bound[0], "") : value;
            }
            case "attr" -> attr(value, arguments.bind(name, 1, "name")[0]);
            case "tojson" -> Json.dumps(values, value, arguments);
            case "e", "escape", "forceescape" -> {
                arguments.positionalOnly(name, 0, 0);
                boolean keep = value instanceof PyTypes.Markup && !name.equals("forceescape");
                yield keep ? value : PyTypes.Markup.escaped(values.str(value));
            }
            case "safe" -> {
                arguments.positionalOnly(name, 0, 0);
                yield new PyTypes.Markup(values.str(value));
            }
            case "string" -> {
                arguments.positionalOnly(name, 0, 0);
                yield value instanceof PyTypes.Markup ? value : values.str(value);
            }
            default -> sequences.apply(name, value, arguments);
        };
    }

    private Object attr(Object value, Object name) {
        if (name instanceof String text) {
            return attributes.attributeOnly(value, text);
        }
        throw JinjaException.error("attribute name must be string, not '" + PyTypes.name(name) + "'");
    }

    private Object text(String name, Object value, Arguments arguments) {
        return switch (name) {
            case "format" -> format(values.str(value), arguments);
            case "indent" -> indent(value, arguments);
            case "truncate" -> truncate(value, arguments);
            case "urlencode" -> {
                arguments.positionalOnly(name, 0, 0);
                yield UrlEncoding.encode(values, value);
            }
            case "trim" ->
                strings.call(values.str(value), "strip", Arguments.of(bindOne(arguments, name, "chars", null)));
            case "center" ->
                strings.call(values.str(value), "center", Arguments.of(bindOne(arguments, name, "width", 80L)));
            case "replace" -> {
                Object[] bound = arguments.bind(name, 2, "old", "new", "count");
                Object count = bound[2] == Arguments.MISSING || bound[2] == null ? -1L : bound[2];
                yield strings.call(
                        values.str(value), "replace", Arguments.of(values.str(bound[0]), values.str(bound[1]), count));
            }
            case "title" -> {
                arguments.positionalOnly(name, 0, 0);
                yield title(values.str(value));
            }
            case "wordcount" -> {
                arguments.positionalOnly(name, 0, 0);
                yield wordCount(values.str(value));
            }
            default -> strings.call(values.str(value), name, arguments);
        };
    }

    private static Object bindOne(Arguments arguments, String function, String parameter, Object otherwise) {
        return Arguments.orDefault(arguments.bind(function, 0, parameter)[0], otherwise);
    }

    private Object format(String format, Arguments arguments) {
        if (!arguments.named().isEmpty() && !arguments.positional().isEmpty()) {
            throw JinjaException.error("can't handle positional and keyword arguments at the same time");
        }
        if (arguments.named().isEmpty()) {
            return operators.binary("%", format, new PyTypes.Tuple(arguments.positional()));
        }
        PyTypes.Dict dict = new PyTypes.Dict();
        arguments.named().forEach((key, value) -> dict.put(key, key, value));
        return operators.binary("%", format, dict);
    }

    /** jinja2's own title case: words begin after white space, hyphens and opening brackets. */
    private static String title(String text) {
        StringBuilder out = new StringBuilder();
        int start = 0;
        while (start < text.length()) {
            int end = start;
            boolean separator = isWordSeparator(text.charAt(start));
            while (end < text.length() && isWordSeparator(text.charAt(end)) == separator) {
                end++;
            }
            int second = start + Character.charCount(text.codePointAt(start));
            out.append(Letters.upper(text.substring(start, second))).append(Letters.lower(text.substring(second, end)));
            start = end;
        }
        return out.toString();
    }

    private static boolean isWordSeparator(char c) {
        return Text.isSpace(c) || "-({[<".indexOf(c) >= 0;
    }

    private static long wordCount(String text) {
        long[] count = {0};
        boolean[] inWord = {false};
        Letters.requireKnown(text).codePoints().forEach(c -> {
            int type = Character.getType(c);
            boolean word = c == '_'
                    || Character.isLetterOrDigit(c)
                    || type == Character.OTHER_NUMBER
                    || type == Character.LETTER_NUMBER;
            count[0] += word && !inWord[0] ? 1 : 0;
            inWord[0] = word;
        });
        return count[0];
    }

    private Object indent(Object value, Arguments arguments) {
        Object[] bound = arguments.bind("indent", 0, "width", "first", "blank");
        Object width = Arguments.orDefault(bound[0], 4L);
        String indention = width instanceof String text ? text : (String) operators.binary("*", " ", width);
        boolean blank = values.truth(Arguments.orDefault(bound[2], false));
        String text = (String) operators.binary("+", value, "\n");
        StringBuilder out = new StringBuilder(values.truth(Arguments.orDefault(bound[1], false)) ? indention : "");
        boolean first = true;
        for (String line : Splitting.lines(text, false)) {
            if (!first) {
                out.append('\n').append(blank || !line.isEmpty() ? indention : "");
                values.limits.allocate(indention.length());
            }
            first = false;
            out.append(line);
        }
        values.limits.allocate(out.length());
        return out.toString();
    }

    private Object truncate(Object value, Arguments arguments) {
        Object[] bound = arguments.bind("truncate", 0, "length", "killwords", "end", "leeway");
        Object end = Arguments.orDefault(bound[2], "...");
        Object leeway = bound[3] == Arguments.MISSING || bound[3] == null ? DEFAULT_LEEWAY + 0L : bound[3];
        Object length = Arguments.orDefault(bound[0], 255L);
        if (!(value instanceof String text)
                || !(end instanceof String ending)
                || !(length instanceof Long longest)
                || !(leeway instanceof Long spare)) {
            throw JinjaException.unsupported("truncate with such values");
        }
        long keep = longest - Text.length(ending);
        if (keep < 0 || spare < 0) {
            throw JinjaException.error("expected length >= " + Text.length(ending) + " and leeway >= 0");
        }
        if (Text.length(text) <= longest + spare) {
            return text;
        }
        String head = Text.substring(text, 0, (int) keep);
        if (!values.truth(Arguments.orDefault(bound[1], false)) && head.lastIndexOf(' ') >= 0) {
            head = head.substring(0, head.lastIndexOf(' '));
        }
        return head + ending;
    }

    private Object number(String name, Object value, Arguments arguments) {
        return switch (name) {
            case "abs" -> {
                arguments.positionalOnly(name, 0, 0);
                if (!Numbers.isNumber(value)) {
                    throw JinjaException.error("bad operand type for abs(): '" + PyTypes.name(value) + "'");
                }
                boolean negative = Numbers.toDouble(value) < 0 || value.equals(-0.0);
                yield operators.unary(negative ? "-" : "+", value);
            }
            case "round" -> round(value, arguments);
            case "int" -> {
                Object[] bound = arguments.bind(name, 0, "default", "base");
                yield NumberParsing.toInt(value, Arguments.orDefault(bound[0], 0L), Arguments.orDefault(bound[1], 10L));
            }
            case "float" -> NumberParsing.toFloat(value, bindOne(arguments, name, "default", 0.0));
            default -> fileSize(value, values.truth(bindOne(arguments, name, "binary", false)));
        };
    }

    private Object round(Object value, Arguments arguments) {
        Object[] bound = arguments.bind("round", 0, "precision", "method");
        Object precision = Arguments.orDefault(bound[0], 0L);
        Object method = Arguments.orDefault(bound[1], "common");
        if (!Numbers.isNumber(value) || !(precision instanceof Long digits) || Math.abs(digits) > 300) {
            throw JinjaException.error("type " + PyTypes.name(value) + " cannot be rounded so");
        }
        if (method.equals("common")) {
            return Numbers.round(value, digits.intValue());
        }
        if (!method.equals("ceil") && !method.equals("floor")) {
            throw JinjaException.error("method must be common, ceil or floor");
        }
        Object factor = operators.binary("**", 10L, precision);
        double scaled = Numbers.toDouble(operators.binary("*", value, factor));
        double rounded = method.equals("ceil") ? Math.ceil(scaled) : Math.floor(scaled);
        if (Math.abs(rounded) > 1L << 53) {
            throw JinjaException.unsupported("rounding beyond 2**53");
        }
        return operators.binary("/", (long) rounded, factor);
    }

    private Object fileSize(Object value, boolean binary) {
        Object parsed = NumberParsing.toFloat(value, null);
        if (parsed == null) {
            throw JinjaException.error("could not convert to float: " + PyTypes.name(value));
        }
        double bytes = (Double) parsed;
        double base = binary ? 1024 : 1000;
        if (bytes == 1) {
            return "1 Byte";
        }
        if (bytes < base) {
            return (long) bytes + " Bytes";
        }
        String prefixes = "kMGTPEZY";
        double unit = base;
        int at = 0;
        while (at + 1 < prefixes.length() && bytes >= unit * base) {
            unit *= base;
            at++;
        }
        if (at > 3) {
            throw JinjaException.unsupported("file sizes beyond terabytes");
        }
        String prefix = prefixes.substring(at, at + 1);
        String size = new BigDecimal(base * bytes / (unit * base))
                .setScale(1, java.math.RoundingMode.HALF_EVEN)
                .toPlainString();
        return size + " " + (binary ? prefix.toUpperCase(java.util.Locale.ROOT) + "iB" : prefix + "B");
    }
}
