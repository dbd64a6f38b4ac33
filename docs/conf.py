"""Settings of the documentation site, which is built from the pages of this folder."""

import os
import sys
from importlib.metadata import version as version_of
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_extensions"), str(HERE.parent)]

# Notebooks and examples run at a size that two CPU cores compute in seconds.
os.environ.setdefault("ERF_NOTEBOOK_SIZE", "832x640")
os.environ.setdefault("ERF_NOTEBOOK_IMAGES", "12")

project = "erf-toolkit"
author = "The erf-toolkit developers"
project_copyright = author
release = version = version_of("erf-toolkit")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "catalogue",
    "commands",
    "links",
    "mathml",
]
exclude_patterns = ["_extensions", "examples", "gallery", "auto_examples/*.ipynb"]
source_suffix = {".md": "myst-nb", ".myst": "myst-nb", ".ipynb": "myst-nb", ".rst": "restructuredtext"}
root_doc = "index"
default_role = "code"
smartquotes = False  # texts of commands and docstrings hold options such as --resume

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
suppress_warnings = ["misc.highlighting_failure"]  # pages show commands and changes beside code

nb_execution_mode = "force"
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_output_stderr = "remove"  # progress

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_format = "short"
autodoc_class_signature = "separated"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
napoleon_numpy_docstring = False

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "auto_examples",
    "image_scrapers": ("matplotlib", "gallery.collect"),
    "ignore_repr_types": r"matplotlib|erf\.plotting",
    "within_subsection_order": "FileNameSortKey",
    "show_signature": False,
    "write_computation_times": False,
    "download_all_examples": False,
    "copyfile_regex": r".*\.rst",
}

html_theme = "furo"
html_title = f"erf-toolkit {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sphinx = False
copybutton_exclude = ".linenos, .gp, .go"
