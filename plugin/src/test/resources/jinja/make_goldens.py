"""Render the probes and chat templates of this folder with Python's jinja2, set up as Hugging Face transformers does.

usage: python make_goldens.py [FOLDER]     (needs jinja2==3.1.6)

probes.json:        {"context": {...}, "templates": [...], "refused": [...]}: small templates, one construct or a few each,
                    and those of them that jinja2 renders and we refuse
chats/NAME.jinja:   whole chat templates; chats/conversations.json: [{context}, ...], each rendered by every template
Writes goldens.json: {"reference": ..., "probes": [...], "chats": {NAME: [...]}}; an entry is the text, or {"error": message}.
"""

import datetime
import json
import pathlib
import sys

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = datetime.datetime(2024, 7, 6, 5, 4, 3)  # what strftime_now tells the time from


class Generation(jinja2.ext.Extension):
    """The generation tag, which marks what the assistant says and writes its body."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_write"), [], [], body).set_lineno(line)

    def _write(self, caller):
        return caller()


def to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def environment():
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    env.filters["tojson"] = to_json
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda format: NOW.strftime(format)
    return env


def render(env, template, context):
    try:
        return env.from_string(template).render(**context)
    except Exception as e:  # what jinja2 refuses, we refuse
        return {"error": str(e)}


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else __file__).resolve()
    folder = folder if folder.is_dir() else folder.parent
    env = environment()
    probes = json.loads((folder / "probes.json").read_text("utf-8"))
    conversations = json.loads((folder / "chats" / "conversations.json").read_text("utf-8"))
    goldens = {
        "reference": f"jinja2 {jinja2.__version__}, Python {sys.version.split()[0]}",
        "probes": [render(env, template, probes["context"]) for template in probes["templates"]],
        "chats": {
            path.stem: [render(env, path.read_text("utf-8"), context) for context in conversations]
            for path in sorted((folder / "chats").glob("*.jinja"))
        },
    }
    text = json.dumps(goldens, ensure_ascii=False, indent=1)
    (folder / "goldens.json").write_text(text + "\n", "utf-8")
    print(len(goldens["probes"]), "probes,", len(goldens["chats"]), "chat templates,", text.count('"error"'), "refused")


main()
