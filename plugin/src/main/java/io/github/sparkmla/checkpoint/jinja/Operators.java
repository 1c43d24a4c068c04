package io.github.sparkmla.checkpoint.jinja;

import java.util.ArrayList;
import java.util.List;

/** The operators on values of any type. */
final class Operators {
    private final Values values;

    Operators(Values values) {
        this.values = values;
    }

    Object unary(String operator, Object operand) {
        if (Numbers.isNumber(operand)) {
            if (operator.equals("+")) {
                return operand instanceof Boolean ? (Object) Numbers.toLong(operand) : operand;
            }
            return operand instanceof Double number ? (Object) (-number) : Numbers.arithmetic("-", 0L, operand);
        }
        if (operand instanceof Undefined undefined) {
            throw undefined.error();
        }
        throw JinjaException.error("bad operand type for unary " + operator + ": '" + PyTypes.name(operand) + "'");
    }

    Object binary(String operator, Object left, Object right) {
        if (Numbers.isNumber(left) && Numbers.isNumber(right)) {
            return Numbers.arithmetic(operator, left, right);
        }
        if (left instanceof PyTypes.Markup || right instanceof PyTypes.Markup) {
            if (operator.equals("+") && isText(left) && isText(right)) {
                return safeSum(left, right);
            }
            throw JinjaException.unsupported("the operator " + operator + " on text marked as safe");
        }
        if (operator.equals("%") && left instanceof String format) {
            return new PercentFormat(values, format, right).render();
        }
        if (left instanceof Undefined undefined) {
            throw undefined.error();
        }
        if (right instanceof Undefined undefined) {
            throw undefined.error();
        }
        if (operator.equals("+")) {
            Object sum = add(left, right);
            if (sum != null) {
                return sum;
            }
        }
        if (operator.equals("*") && (Numbers.isInt(left) || Numbers.isInt(right))) {
            Object sequence = Numbers.isInt(left) ? right : left;
            Object product = repeat(sequence, Numbers.toLong(Numbers.isInt(left) ? left : right));
            if (product != null) {
                return product;
            }
        }
        if (left instanceof PyTypes.DictView || left instanceof PyTypes.Dict) {
            throw JinjaException.unsupported("the operator " + operator + " on a " + PyTypes.name(left));
        }
        throw JinjaException.error("unsupported operand type(s) for " + operator + ": '" + PyTypes.name(left)
                + "' and '" + PyTypes.name(right) + "'");
    }

    private static boolean isText(Object value) {
        return value instanceof String || value instanceof PyTypes.Markup;
    }

    /** Text that is added to text marked as safe is escaped. */
    private PyTypes.Markup safeSum(Object left, Object right) {
        String a = safe(left);
        String b = safe(right);
        values.limits.allocate((long) a.length() + b.length());
        return new PyTypes.Markup(a + b);
    }

    private static String safe(Object text) {
        return (text instanceof PyTypes.Markup markup ? markup : PyTypes.Markup.escaped((String) text)).text();
    }

    private Object add(Object left, Object right) {
        if (left instanceof String a && right instanceof String b) {
            values.limits.allocate((long) a.length() + b.length());
            return a + b;
        }
        if (left instanceof List && right instanceof List) {
            return joined(left, right);
        }
        if (left instanceof PyTypes.Tuple && right instanceof PyTypes.Tuple) {
            return new PyTypes.Tuple(joined(left, right));
        }
        return null;
    }

    private List<Object> joined(Object left, Object right) {
        List<Object> a = Values.elements(left);
        List<Object> b = Values.elements(right);
        count((long) a.size() + b.size());
        List<Object> sum = new ArrayList<>(a);
        sum.addAll(b);
        return sum;
    }

    private Object repeat(Object sequence, long times) {
        long count = Math.max(0, Math.min(times, Integer.MAX_VALUE));
        if (sequence instanceof String text) {
            values.limits.allocate(count * text.length());
            return text.repeat(text.isEmpty() ? 0 : (int) count);
        }
        if (sequence instanceof List || sequence instanceof PyTypes.Tuple) {
            List<Object> elements = Values.elements(sequence);
            count(count * elements.size());
            List<Object> product = new ArrayList<>();
            for (long i = 0; i < count && !elements.isEmpty(); i++) {
                product.addAll(elements);
            }
            return sequence instanceof List ? product : new PyTypes.Tuple(product);
        }
        return null;
    }

    /** A list's elements take more room than a text's characters. */
    private void count(long elements) {
        values.limits.allocate(elements * 4);
        values.limits.step(elements / 8);
    }

    boolean compare(String operator, Object left, Object right) {
        return switch (operator) {
            case "==" -> values.equal(left, right);
            case "!=" -> !values.equal(left, right);
            case "in" -> values.contains(right, left);
            case "not in" -> !values.contains(right, left);
            case "<" -> values.compare(operator, left, right) < 0;
            case "<=" -> values.compare(operator, left, right) <= 0;
            case ">" -> values.compare(operator, left, right) > 0;
            default -> values.compare(operator, left, right) >= 0;
        };
    }

    /** {@code object[start:stop:step]}; null where a bound is left out or None. */
    Object slice(Object object, Object start, Object stop, Object step) {
        if (object instanceof Undefined undefined) {
            throw undefined.error();
        }
        boolean sliceable = object instanceof String
                || object instanceof List
                || object instanceof PyTypes.Tuple
                || object instanceof PyTypes.Range;
        if (!sliceable) {
            throw JinjaException.error("'" + PyTypes.name(object) + "' object is not subscriptable by a slice");
        }
        if (object instanceof PyTypes.Range) {
            throw JinjaException.unsupported("slices of a range");
        }
        int length = (int) values.length(object);
        long by = step == null ? 1 : bound(step);
        if (by == 0) {
            throw JinjaException.error("slice step cannot be zero");
        }
        int from = clip(start, by > 0 ? 0 : length - 1, length, by);
        int to = clip(stop, by > 0 ? length : -1, length, by);
        if (object instanceof String text) {
            return sliceText(text, from, to, by);
        }
        List<Object> elements = Values.elements(object);
        List<Object> part = new ArrayList<>();
        for (long i = from; by > 0 ? i < to : i > to; i += by) {
            part.add(elements.get((int) i));
        }
        count(part.size());
        return object instanceof List ? part : new PyTypes.Tuple(part);
    }

    private String sliceText(String text, int from, int to, long by) {
        values.limits.allocate(text.length());
        if (by == 1) {
            return from >= to ? "" : Text.substring(text, from, to);
        }
        int[] points = text.codePoints().toArray();
        StringBuilder part = new StringBuilder();
        for (long i = from; by > 0 ? i < to : i > to; i += by) {
            part.appendCodePoint(points[(int) i]);
        }
        return part.toString();
    }

    private static int clip(Object bound, int missing, int length, long step) {
        if (bound == null) {
            return missing;
        }
        long at = bound(bound);
        if (at < 0) {
            at = Math.max(at + length, step > 0 ? 0 : -1);
        }
        return (int) Math.min(at, step > 0 ? length : length - 1);
    }

    private static long bound(Object value) {
        if (!Numbers.isInt(value)) {
            throw JinjaException.error("slice indices must be integers or None or have an __index__ method");
        }
        long bound = Numbers.toLong(value);
        return Math.max(Math.min(bound, Integer.MAX_VALUE), -Integer.MAX_VALUE);
    }
}
