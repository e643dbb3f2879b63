"""The landing page: where to begin."""
import html, re

from .shell import Frame

DOORS = [("tutorials", "Learn by doing", "Questions answered by experiment, with exercises that say what is wrong. Begin here if you are new."),
         ("guide", "Guide", "The names you know from other tools, a glossary, methods with their papers, and honest limits."),
         ("gallery", "Widgets", "Attention, patching, features, dialogues: alive on a page, without a kernel."),
         ("reports", "Reports", "One command, one page. What each report asks for, and one that was run."),
         ("lm", "Rooms", "Every method in a lesson: its formula, the code, a model it runs on, and how it misleads."),
         ("api", "Reference", "Every public name with its signature and parameters. Press / to search.")]


def front(body: str, frame: Frame) -> str:
    "Doors between the title and the text of the README."
    doors = "".join(f'<a class="door" href="{frame.folders[f][0].path}"><b>{html.escape(title)}</b><span>{html.escape(line)}</span></a>' for f, title, line in DOORS if f in frame.folders)
    return re.sub(r"(</h1>\s*(?:<blockquote>.*?</blockquote>)?)", lambda m: f'{m[1]}<div class="doors">{doors}</div>', body, count=1, flags=re.S)
