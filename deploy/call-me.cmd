@echo off
rem The server on Windows, as a task that is started at boot. It needs no other program. In PowerShell as administrator:
rem
rem   mkdir C:\ProgramData\call-me; cp call-me.exe, call-me.cmd C:\ProgramData\call-me
rem   icacls C:\ProgramData\call-me /inheritance:r /grant "Administrators:(OI)(CI)F" "LOCAL SERVICE:(OI)(CI)M"
rem   Set-Content -NoNewline C:\ProgramData\call-me\keys (-join ((1..48) | % { '{0:x}' -f (Get-SecureRandom 16) }))
rem   Register-ScheduledTask call-me -User 'NT AUTHORITY\LOCAL SERVICE' -Trigger (New-ScheduledTaskTrigger -AtStartup) `
rem     -Action (New-ScheduledTaskAction C:\ProgramData\call-me\call-me.cmd) `
rem     -Settings (New-ScheduledTaskSettingsSet -ExecutionTimeLimit ([TimeSpan]::Zero) -AllowStartIfOnBatteries -DontStopIfGoingOnBatteries)
rem   Start-ScheduledTask call-me
rem
rem Stop-ScheduledTask ends it at once, which loses nothing.
cd /d "%~dp0"
set API_KEY_FILE=keys
set CALL_ME_DB=call-me.db
rem set CALL_ME_ENVIRONMENTS_FILE=environments
:again
"%~dp0call-me.exe" serve 2>>call-me.log
rem It has ended: again, after a second.
ping -n 2 127.0.0.1 >nul
goto again
