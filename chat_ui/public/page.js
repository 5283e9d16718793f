// Until a visitor chooses, the page follows the light or dark setting of their system.
if (!localStorage.getItem("vite-ui-theme")) localStorage.setItem("vite-ui-theme", "system");
