"""What MkDocs adds to the written pages: every command as its help describes it, benchmark tables, the changelog."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from typer import Context
from typer.cli import get_docs_for_click
from typer.main import get_command

from alserve.cli import app

ROOT = Path(__file__).parents[1]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and pictures that are kept elsewhere, or nowhere."""
    files.append(File.generated(config, "commands.md", content=commands()))
    for path in sorted((ROOT / "benchmarks" / "results").iterdir()):
        files.append(File.generated(config, f"benchmarks/{path.name}", abs_src_path=str(path)))
    files.append(File.generated(config, "changelog.md", abs_src_path=str(ROOT / "CHANGELOG.md")))
    files.append(File.generated(config, "images/demo.jpg", abs_src_path=str(ROOT / "models" / "demo.jpg")))
    return files


def commands() -> str:
    """Return the help of every command as Markdown."""
    command = get_command(app)
    for part in command.commands.values():
        part.short_help = part.get_short_help_str(limit=200)  # Typer cuts it off
    return get_docs_for_click(obj=command, ctx=Context(command), name="alserve", title="Commands").replace("\\[", "[")
