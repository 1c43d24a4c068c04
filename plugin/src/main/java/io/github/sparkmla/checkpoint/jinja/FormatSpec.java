package io.github.sparkmla.checkpoint.jinja;

import java.math.BigDecimal;
import java.math.RoundingMode;

/** One conversion of a {@code %} format or one field of {@code str.format}: alignment, sign, width, precision, type. */
final class FormatSpec {
    private final Values values;
    /** One of {@code < > ^ =}, or 0 where not given. */
    char align = 0;

    String fill = " ";
    char sign = '-';
    boolean grouping = false;
    /** Both -1 where not given. */
    int width = -1;

    int precision = -1;
    private boolean zero = false;

    FormatSpec(Values values) {
        this.values = values;
    }

    void leftAlign() {
        align = '<';
    }

    void zeroPad() {
        zero = true;
    }

    /** A {@code %} conversion. */
    String percent(char type, Object value) {
        return switch (type) {
            case 's', 'r' -> {
                String text = type == 's' ? values.str(value) : values.repr(value);
                yield pad(cut(text), '>');
            }
            case 'c' -> pad(character(value), '>');
            case 'd', 'i', 'u', 'x', 'X', 'o' -> {
                if (value instanceof Undefined undefined) {
                    throw undefined.error();
                }
                if (!Numbers.isNumber(value) || (value instanceof Double && "xXo".indexOf(type) >= 0)) {
                    throw JinjaException.error(
                            "%" + type + " format: a real number is required, not " + PyTypes.name(value));
                }
                if (precision >= 0) {
                    throw JinjaException.unsupported("a precision for an integer in a % format");
                }
                yield numeric(integer(type == 'i' || type == 'u' ? 'd' : type, toInteger(value)));
            }
            case 'f', 'F' -> {
                if (!Numbers.isNumber(value)) {
                    throw JinjaException.error("must be real number, not " + PyTypes.name(value));
                }
                yield numeric(fixed(Numbers.toDouble(value)));
            }
            default -> throw JinjaException.unsupported("the conversion %" + type);
        };
    }

    private static long toInteger(Object value) {
        if (value instanceof Double number) {
            if (Math.abs(number) > 1L << 53) {
                throw JinjaException.unsupported("floats beyond 2**53 as integers");
            }
            return number.longValue();
        }
        return Numbers.toLong(value);
    }

    private static String character(Object value) {
        if (value instanceof String text && Text.length(text) == 1) {
            return text;
        }
        throw JinjaException.unsupported("%c with anything but one character");
    }

    /** A field of {@code str.format} with this type, 0 for none. */
    String field(char type, Object value) {
        if (value instanceof String text && (type == 0 || type == 's')) {
            if (sign != '-' || grouping || zero || align == '=') {
                throw JinjaException.unsupported("number formatting of a string");
            }
            return pad(cut(text), '<');
        }
        if (value instanceof Long number && (type == 0 || type == 'd') && precision < 0) {
            return numeric(integer('d', number));
        }
        if ((value instanceof Double || value instanceof Long) && (type == 'f' || type == 'F')) {
            return numeric(fixed(Numbers.toDouble(value)));
        }
        throw JinjaException.unsupported(
                "the format type '" + (type == 0 ? "" : type) + "' for a " + PyTypes.name(value));
    }

    private static String integer(char type, long value) {
        return switch (type) {
            case 'x' -> (value < 0 ? "-" : "") + Long.toHexString(Math.abs(value));
            case 'X' ->
                (value < 0 ? "-" : "") + Long.toHexString(Math.abs(value)).toUpperCase(java.util.Locale.ROOT);
            case 'o' -> (value < 0 ? "-" : "") + Long.toOctalString(Math.abs(value));
            default -> Long.toString(value);
        };
    }

    private String fixed(double value) {
        if (precision > 400) {
            throw JinjaException.unsupported("more than 400 digits after the point");
        }
        String digits = new BigDecimal(Math.abs(value))
                .setScale(precision < 0 ? 6 : precision, RoundingMode.HALF_EVEN)
                .toPlainString();
        return (1 / value < 0 || value < 0 ? "-" : "") + digits;
    }

    /** A number's sign, its thousands, its padding. */
    private String numeric(String number) {
        String digits = number.startsWith("-") ? number.substring(1) : number;
        String prefix = number.startsWith("-") ? "-" : sign == '-' ? "" : String.valueOf(sign);
        if (grouping) {
            if (zero) {
                throw JinjaException.unsupported("zero padding together with thousands separators");
            }
            int point = digits.indexOf('.') < 0 ? digits.length() : digits.indexOf('.');
            digits = digits.substring(0, point).replaceAll("(?<=\\d)(?=(\\d{3})+$)", ",") + digits.substring(point);
        }
        if (zero && align == 0) {
            int missing = Math.max(0, width - prefix.length() - digits.length());
            return prefix + "0".repeat(missing) + digits;
        }
        if (align == '=') {
            int missing = Math.max(0, width - prefix.length() - digits.length());
            return prefix + fill.repeat(missing) + digits;
        }
        return pad(prefix + digits, '>');
    }

    private String cut(String text) {
        return precision < 0 || precision >= Text.length(text) ? text : Text.substring(text, 0, precision);
    }

    private String pad(String text, char defaultAlign) {
        int missing = Math.max(0, width - Text.length(text));
        values.limits.allocate(text.length() + (long) missing);
        int before = switch (align == 0 ? defaultAlign : align) {
            case '<' -> 0;
            case '^' -> missing / 2;
            default -> missing;
        };
        return fill.repeat(before) + text + fill.repeat(missing - before);
    }
}
